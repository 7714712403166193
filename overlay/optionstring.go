package overlay

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// optionString mounts through mount(2), whose options must fit in one page.
// Where they do not, or a path holds a special character, the layers are
// opened and named by their descriptors' numbers, relative to a working
// directory of /proc/self/fd: a full stack of MaxLowers takes 2.5 kB then.
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

// inWorkingDir runs fn on a thread of its own whose working directory is dir;
// the process's stays as it is. The thread ends with the call.
func inWorkingDir(dir string, fn func() error) error {
	done := make(chan error, 1)
	go ownThread(func() {
		// A thread shares its working directory until it says otherwise,
		// unshare(2).
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

// ownThread must be the whole of a goroutine. It runs fn on a thread that
// ends with it, which is never the main one: that one does not end, and
// /proc/self shows its working directory as the process's.
func ownThread(fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		fn() // still locked on return: the runtime ends the thread
		return
	}
	// While this goroutine holds the main thread the next one gets another.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		fn()
	}()
	<-done
	runtime.UnlockOSThread()
}
