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

// parts are what a machine is booted from.
type parts struct {
	kernel, initrd string
	// root, modules and stage are images of file systems; what is written to the
	// first is thrown away.
	root, modules, stage string
	// ssh is a port of loopback for the machine's sshd, none if empty.
	ssh string
	// log gets what the kernel writes to its console.
	log string
}

// start boots a machine. What comes out of the serial port for results is on the
// reader, which ends with the machine.
func (m machine) start(ctx context.Context, p parts) (io.ReadCloser, *exec.Cmd, error) {
	accel, cpu := m.accelerator()
	system, board, console := "qemu-system-x86_64", "q35", "ttyS0"
	if m.arch == "arm64" {
		system, board, console = "qemu-system-aarch64", "virt", "ttyAMA0"
	}
	kernel := "console=" + console + " mitigations=off panic=-1 loglevel=4 systemd.show_status=0 " + m.cmdline
	if accel != "kvm" {
		// Go's scheduler sleeps for microseconds, and each wakeup is dear to emulate.
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
	// The snapshot is a file of this directory, removed at once.
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Dir(p.log))
	cmd.Stderr = os.Stderr
	// An end of the input would end the character device.
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

// accelerator returns qemu's accelerator, KVM where it can be used for the
// machine's processor, and the model of the processor.
func (m machine) accelerator() (accel, cpu string) {
	if m.arch == runtime.GOARCH && kvm() {
		return "kvm", "host"
	}
	accel = "tcg,thread=multi,tb-size=512"
	if m.arch == "arm64" {
		// The newest ones sign pointers, which is slow to emulate.
		return accel, "cortex-a72"
	}
	// So are pages of five levels and AVX; an older one takes a fifth less time.
	return accel, "Nehalem"
}

// kvm reports whether KVM makes virtual machines that run. Its device can be there,
// and even make one, on a processor without extensions for it (a virtual machine's),
// where it then runs nothing.
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

// outside starts a web server for a machine's steps and returns its address as the
// machine, whose network qemu makes, sees it.
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
