package overlay

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// optionString mounts through mount(2). Its options must fit into one page. If they do
// not fit, or if a path has a special character, it opens the layers and names them by
// their file descriptors, relative to the working directory /proc/self/fd. A full stack
// of MaxLowers then takes 2.5 kB.
func optionString(m Mount) error {
	data := m.options(m.Lower, m.Upper, m.Work)
	if len(data) < os.Getpagesize() && !strings.ContainsAny(strings.Join(m.layerPaths(), ""), special) {
		return mountOverlay(m.Target, data)
	}
	var fds layerFDs
	defer fds.close()
	lower := make([]string, len(m.Lower))
	for i, dir := range m.Lower {
		n, err := fds.number(dir)
		if err != nil {
			return err
		}
		lower[i] = n
	}
	var upper, work string
	if m.Upper != "" {
		var err error
		if upper, err = fds.number(m.Upper); err != nil {
			return err
		}
		if work, err = fds.number(m.Work); err != nil {
			return err
		}
	}
	return inWorkingDir(procFD, func() error {
		return mountOverlay(m.Target, m.options(lower, upper, work))
	})
}

func (m Mount) options(lower []string, upper, work string) string {
	opts := []string{"lowerdir=" + strings.Join(lower, ":")}
	if upper != "" {
		opts = append(opts, "upperdir="+upper, "workdir="+work)
	}
	for _, o := range selfContained {
		opts = append(opts, o[0]+"="+o[1])
	}
	return strings.Join(append(opts, m.flags()...), ",")
}

func mountOverlay(target, data string) error {
	if len(data) >= os.Getpagesize() {
		return fmt.Errorf("mount(2): %d bytes of options do not fit in a page: %w", len(data), unix.E2BIG)
	}
	if err := unix.Mount("overlay", target, "overlay", 0, data); err != nil {
		return fmt.Errorf("mount(2): %w", err)
	}
	return nil
}

// inWorkingDir runs fn on a separate thread with the working directory dir. The working
// directory of the process does not change. The thread ends with the call.
func inWorkingDir(dir string, fn func() error) error {
	done := make(chan error, 1)
	go ownThread(func() {
		// Threads share a working directory until one calls unshare(2).
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- fmt.Errorf("unshare working directory: %w", err)
			return
		}
		if err := unix.Chdir(dir); err != nil {
			done <- fmt.Errorf("enter %s: %w", dir, err)
			return
		}
		done <- fn()
	})
	return <-done
}

// ownThread runs fn on a thread that ends afterwards. The caller must start ownThread
// with a go statement. It never uses the main thread. The main thread does not end, and
// /proc/self shows its working directory as that of the process.
func ownThread(fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		fn() // the thread is still locked on return, so the runtime ends it
		return
	}
	// While this goroutine occupies the main thread, another goroutine runs on a
	// different one.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		fn()
	}()
	<-done
	runtime.UnlockOSThread()
}
