package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/tests/kernels/plan"
)

// parts are the files from which a machine boots, and its connections to the host.
type parts struct {
	kernel, initrd string
	// root, modules and stage are file system images. Writes to root are discarded.
	root, modules, stage string
	// ssh is a port of loopback that is forwarded to the machine's sshd. If it is empty,
	// no port is forwarded.
	ssh string
	// log is the file that receives the output of the kernel's console.
	log string
}

// start boots a machine. The reader returns the results that the machine writes to its
// serial port. It ends when the machine ends.
func (m machine) start(ctx context.Context, p parts) (io.ReadCloser, *exec.Cmd, error) {
	accel, cpu := m.accelerator()
	system, board, console := "qemu-system-x86_64", "q35", "ttyS0"
	if m.arch == "arm64" {
		system, board, console = "qemu-system-aarch64", "virt", "ttyAMA0"
	}
	kernel := "console=" + console + " mitigations=off panic=-1 loglevel=4 systemd.show_status=0 " + m.cmdline
	if accel != "kvm" {
		// Go's scheduler sleeps for microseconds. Each wakeup is expensive to emulate.
		kernel += " highres=off"
	}
	network := "user,id=net"
	if p.ssh != "" {
		network += ",hostfwd=tcp:127.0.0.1:" + p.ssh + "-:22"
	}
	cmd := exec.CommandContext(
		ctx, system, "-M", board, "-accel", accel, "-cpu", cpu, "-smp", "2", "-m", "3000", "-display", "none", "-nodefaults",
		"-kernel", p.kernel, "-initrd", p.initrd, "-append", kernel, "-no-reboot",
		"-serial", "file:"+p.log,
		"-drive", "if=virtio,format=raw,snapshot=on,cache=unsafe,file="+p.root,
		"-drive", "if=virtio,format=raw,readonly=on,file="+p.modules,
		"-drive", "if=virtio,format=raw,readonly=on,file="+p.stage,
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=results,signal=off", "-device", "virtserialport,chardev=results,name="+plan.Port,
		"-netdev", network, "-device", "virtio-net-pci,netdev=net",
		"-device", "virtio-rng-pci",
	)
	// The snapshot is a file in this directory. qemu unlinks it after it opens it.
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Dir(p.log))
	cmd.Stderr = os.Stderr
	// Keep standard input open: at its end, qemu would close the character device.
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start qemu: %w", err)
	}
	return out, cmd, nil
}

// accelerator returns the accelerator of qemu and the processor model. The accelerator is
// KVM if KVM works on this host for the machine's architecture.
func (m machine) accelerator() (accel, cpu string) {
	if m.arch == runtime.GOARCH && kvm() {
		return "kvm", "host"
	}
	accel = "tcg,thread=multi,tb-size=512"
	if m.arch == "arm64" {
		// Newer models sign pointers, which is slow to emulate.
		return accel, "cortex-a72"
	}
	// Five-level page tables and AVX are slow to emulate too. This older model takes a
	// fifth less time.
	return accel, "Nehalem"
}

// kvm reports whether KVM can run virtual machines here. The device alone does not show
// that: on a processor without the extensions, for example in a virtual machine, /dev/kvm
// may exist and even create a virtual machine that then runs no code.
func kvm() bool {
	if runtime.GOARCH == "amd64" {
		info, err := os.ReadFile("/proc/cpuinfo")
		if err != nil || !regexp.MustCompile(`(?m)^flags\b.* (vmx|svm)\b`).Match(info) {
			return false
		}
	}
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)    //nolint:errcheck // nothing was written
	const createVM = 0xAE01 // KVM_CREATE_VM, linux/kvm.h
	vm, err := unix.IoctlRetInt(fd, createVM)
	if err != nil {
		return false
	}
	return unix.Close(vm) == nil
}

// outside starts a web server on the host for the steps of a machine. It returns its
// address as seen from the machine, through the network that qemu emulates.
func outside(ctx context.Context) (address string, stop func() error, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, plan.Hello)
	})}
	go server.Serve(listener) //nolint:errcheck // ends with Close
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return net.JoinHostPort("10.0.2.2", port), server.Close, err
}
