package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// packages are installed in every machine, in addition to those of priority "important".
var packages = []string{
	// Login sessions and the programs that shale needs.
	"systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "openssh-server", "openssh-client", "uidmap", "passt", "udev", "kmod",
	// Security modules.
	"apparmor", "selinux-policy-default", "policycoreutils", "selinux-utils",
	// File systems.
	"e2fsprogs", "xfsprogs", "btrfs-progs", "nfs-kernel-server", "nfs-common", "mount", "fuse-overlayfs",
	// Programs that the cases and scenarios call.
	"podman", "buildah", "skopeo", "umoci", "runc", "crun", "docker-registry", "busybox-static", "git", "procps", "attr", "libcap2-bin",
	"file", "bsdutils", "util-linux", "curl", "ca-certificates", "iproute2", "zstd", "gzip", "tar",
}

//go:embed root.sh
var customize string

// run runs a program and passes its output to standard error.
func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	return nil
}

// cached returns the path of a file or directory in the cache. If it does not exist,
// cached calls fill with a temporary directory, in which fill must create the file
// "made". That file is then renamed to its place.
func cached(cache, name string, fill func(work string) error) (string, error) {
	path := filepath.Join(cache, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(cache, "."+name+"-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work) //nolint:errcheck // what remains is not used
	fmt.Fprintln(os.Stderr, "making", name)
	if err := fill(work); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	// Rename only complete files into place. If two processes make the same file, the
	// first to finish wins.
	if err := os.Rename(filepath.Join(work, "made"), path); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return path, nil
}

// root returns the path of the image of the machine's root file system.
func (m machine) root(ctx context.Context, cache string) (string, error) {
	sum := sha256.Sum256([]byte(strings.Join(packages, " ") + customize + labels))
	kind := m.arch
	if m.labelled {
		kind += "-labelled"
	}
	return cached(cache, fmt.Sprintf("root-%s-%x.ext4", kind, sum[:6]), func(work string) error {
		dir := filepath.Join(work, "root")
		if err := m.bootstrap(ctx, work, dir); err != nil {
			return err
		}
		if m.labelled {
			// SELinux is not active on the host, so the labels are ordinary extended
			// attributes. setfiles sets them through /proc/self/fd.
			script := `mount -t proc proc "$0/proc" && exec chroot "$0" setfiles -F -e /proc "$1" /`
			if err := run(ctx, "unshare", "--mount", "sh", "-c", script, dir, labels); err != nil {
				return err
			}
		}
		return image(ctx, filepath.Join(work, "made"), dir, "8G")
	})
}

// labels is the path of Debian's table of SELinux labels for files.
const labels = "/etc/selinux/default/contexts/files/file_contexts"

// bootstrap installs Debian in the directory dir.
func (m machine) bootstrap(ctx context.Context, work, dir string) error {
	sources, err := sources(ctx, "bookworm")
	if err != nil {
		return err
	}
	hook, list := filepath.Join(work, "root.sh"), filepath.Join(work, "sources.list")
	if err := errors.Join(os.WriteFile(hook, []byte(customize), 0o755), os.WriteFile(list, []byte(sources), 0o644)); err != nil {
		return err
	}
	cmd := exec.CommandContext(
		ctx, "mmdebstrap", "--quiet", "--variant=important", "--mode=root", "--format=directory", "--architectures="+m.arch,
		"--include="+strings.Join(packages, ","), `--aptopt=APT::Install-Recommends "false"`, `--aptopt=Acquire::Languages "none"`,
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
		"--customize-hook="+hook, "bookworm", dir, list,
	)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if m.foreign() {
		emulated(cmd)
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run mmdebstrap: %w", err)
	}
	return nil
}

// emulated changes cmd so that qemu's user mode emulation runs the packages' scripts,
// which are arm64 programs. The emulator is registered only in a user namespace of the
// command (Linux 6.7 and later). The host itself must continue to refuse such programs,
// because tests rely on that.
func emulated(cmd *exec.Cmd) {
	const register = `set -e
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf '%s' ':arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F' \
	>/proc/sys/fs/binfmt_misc/register
exec "$@"`
	everybody := []syscall.SysProcIDMap{{Size: math.MaxUint32}}
	cmd.Args = append([]string{"sh", "-c", register, "sh"}, cmd.Args...)
	cmd.Path = "/bin/sh"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: everybody, GidMappings: everybody, GidMappingsEnableSetgroups: true,
	}
}

// image makes an ext4 file system from a directory. The file is sparse, so size is only
// an upper limit.
func image(ctx context.Context, file, dir, size string) error {
	return run(ctx, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", dir, file, size)
}

// label gives every file below dir the same SELinux label. It is for images other than
// the root file system, because SELinux's table of labels does not cover them.
func label(dir, context string) error {
	return filepath.WalkDir(dir, func(file string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.Lsetxattr(file, "security.selinux", append([]byte(context), 0), 0)
	})
}
