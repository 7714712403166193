package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// makeNamespace mounts a new network namespace at path. A process's file in /proc could
// be used instead, but opening it requires ptrace(2) permission. The bind mount also
// keeps the namespace alive without a process.
func makeNamespace(path string) error {
	if err := makeFile(path); err != nil {
		return fmt.Errorf("create network namespace: %w", err)
	}
	done := make(chan error, 1)
	onOwnThread(func() { done <- unshareTo(path) })
	if err := <-done; err != nil {
		return errors.Join(fmt.Errorf("create network namespace: %w", err), os.Remove(path))
	}
	return nil
}

// onOwnThread calls f on a separate thread and returns at once. The thread ends when f
// returns. It is never the process's first thread: Go parks that thread and does not end
// it, and /proc/self shows its state.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			f()
			return
		}
		// Keep this thread locked until f runs on another one.
		locked := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(locked)
			f()
		}()
		<-locked
		runtime.UnlockOSThread()
	}()
}

func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func unshareTo(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
}

func removeNamespace(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount network namespace: %w", err)
	}
	return os.Remove(path)
}

// view is the mount namespace of one thread. In it, a network namespace is mounted at a
// path at which the AppArmor profile of pasta allows to open it. The profiles of Debian,
// Ubuntu and SUSE allow /run/user/UID/netns/* with any number for UID, because podman
// keeps its network namespaces there. They also allow pasta's own files below /tmp. The
// kernel removes a view with the last process in it, so no mount can be left behind, and
// podman does not see it.
type view struct {
	// path is the path of the network namespace, as seen by a process in the view. dir is
	// the directory that contains it.
	path string
	dir  *os.File
	// tmp is the view's /tmp, which is empty at first.
	tmp *os.File
}

// enterView moves the calling thread into a new view of the network namespace at path.
// The thread must be one of onOwnThread. It needs CAP_SYS_ADMIN over the mount namespace.
func enterView(path string) (_ *view, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	// Open it now, because the next mount may hide the path.
	ns, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, unix.Close(ns)) }()
	users, dir := "/run/user", "/run/user/0/netns"
	if fi, err := os.Stat(users); err != nil || !fi.IsDir() {
		users = "/run" // no logind(8) on this machine
	}
	for _, target := range []string{users, "/tmp"} {
		if err := unix.Mount("shale", target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755,size=64k"); err != nil {
			return nil, fmt.Errorf("mount tmpfs on %s: %w", target, err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as those of podman
		return nil, err
	}
	v := &view{path: filepath.Join(dir, "shale")}
	if err := makeFile(v.path); err != nil {
		return nil, err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/thread-self/fd/%d", ns), v.path, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("mount network namespace: %w", err)
	}
	if v.dir, err = os.Open(dir); err != nil {
		return nil, err
	}
	if v.tmp, err = os.Open("/tmp"); err != nil {
		return nil, errors.Join(err, v.dir.Close())
	}
	return v, nil
}

// end removes the network namespace from the view. pasta takes that as a request to end
// (pasta(1), --no-netns-quit). end is called outside the view. There the file is not a
// mount point and can be removed (Linux 3.18).
func (v *view) end() error {
	err := unix.Unlinkat(int(v.dir.Fd()), filepath.Base(v.path), 0)
	return errors.Join(err, v.dir.Close(), v.tmp.Close())
}
