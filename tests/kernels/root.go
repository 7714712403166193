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

// packages of every machine, beside those that Debian marks as important.
var packages = []string{
	// Sessions, and what shale needs.
	"systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "openssh-server", "openssh-client", "uidmap", "passt", "udev", "kmod",
	// The security modules.
	"apparmor", "selinux-policy-default", "policycoreutils", "selinux-utils",
	// File systems.
	"e2fsprogs", "xfsprogs", "btrfs-progs", "nfs-kernel-server", "nfs-common", "mount", "fuse-overlayfs",
	// What the cases and scenarios call.
	"podman", "buildah", "skopeo", "umoci", "runc", "crun", "docker-registry", "busybox-static", "git", "procps", "attr", "libcap2-bin",
	"file", "bsdutils", "util-linux", "curl", "ca-certificates", "iproute2", "zstd", "gzip", "tar",
}

//go:embed root.sh
var customize string

// run runs a program and shows what it says.
func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	return nil
}

// cached returns the path of a file in the cache, which fill makes, in a directory
// for temporary files, if it is not there.
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
	// Only what is whole gets its name. The first of two that make it wins.
	if err := os.Rename(filepath.Join(work, "made"), path); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return path, nil
}

// root returns the image of the machine's root file system.
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
			// Without SELinux in this kernel the labels are attributes like others.
			// setfiles sets them through /proc/self/fd.
			script := `mount -t proc proc "$0/proc" && exec chroot "$0" setfiles -F -e /proc "$1" /`
			if err := run(ctx, "unshare", "--mount", "sh", "-c", script, dir, labels); err != nil {
				return err
			}
		}
		return image(ctx, filepath.Join(work, "made"), dir, "8G")
	})
}

// labels is Debian's table of SELinux's labels for files.
const labels = "/etc/selinux/default/contexts/files/file_contexts"

// bootstrap installs Debian in a directory.
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

// emulated has the packages' scripts, which are programs of arm64, run by qemu's user
// mode emulation, known to a user namespace of the command's own only (Linux 6.7): the
// machine goes on refusing such programs, as tests want it to.
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

// image makes a file system of a directory. Its files are not allocated where they
// are empty, so that size is a bound.
func image(ctx context.Context, file, dir, size string) error {
	return run(ctx, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", dir, file, size)
}

// label gives every file below a directory one SELinux label: images that are not
// the root file system have no place in its table.
func label(dir, context string) error {
	return filepath.WalkDir(dir, func(file string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.Lsetxattr(file, "security.selinux", append([]byte(context), 0), 0)
	})
}
