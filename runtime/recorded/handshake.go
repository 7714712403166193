package recorded

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/sandbox/initproc"
)

// Line is a socket pair between the builder and the first process of a container. The
// process receives its filter through it and sends the seccomp listener back.
type Line struct {
	// Inner is the end of the process. It must be the first file descriptor after the
	// standard ones. The caller must close it after the attempt to start the process.
	Inner *os.File
	outer int
}

// NewLine creates a Line and sends the filter of tier t. owners has the records of the
// files that the step sees. overlay reports whether the step's files are on an overlay,
// which copies files up before it changes them. The caller must call Close. NewLine
// returns an error if the sockets cannot be created or the filter cannot be sent.
func NewLine(t Tier, owners *Owners, overlay bool) (*Line, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a line to the container: %w", err)
	}
	l := &Line{Inner: os.NewFile(uintptr(pair[1]), "filter"), outer: pair[0]}
	message := append([]byte(initproc.FilterMagic), Filter(t, overlay && !owners.table.empty())...)
	if _, err := unix.SendmsgN(l.outer, message, nil, nil, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("send the filter: %w", err), l.Inner.Close(), l.Close())
	}
	return l, nil
}

// ErrNoListener is returned by Listener if the container ended before it sent a listener,
// or if HangUp was called.
var ErrNoListener = errors.New("no listener")

// Listener waits for the seccomp listener and returns its file descriptor. The caller
// owns the descriptor and must pass it to Serve. Listener returns ErrNoListener, or the
// message of the container's process if that could not install the filter.
func (l *Line) Listener() (int, error) {
	data, control := make([]byte, 256), make([]byte, unix.CmsgSpace(4))
	var n, oob int
	var err error
	for {
		n, oob, _, _, err = unix.Recvmsg(l.outer, data, control, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return -1, fmt.Errorf("receive the listener: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:oob])
	if err == nil && len(messages) > 0 {
		fds, err := unix.ParseUnixRights(&messages[0])
		if err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	if n > 0 {
		return -1, fmt.Errorf("install the seccomp filter that records ownership: %s", data[:n])
	}
	return -1, ErrNoListener
}

// HangUp makes a waiting Listener return. It may be called from another goroutine.
func (l *Line) HangUp() { _ = unix.Shutdown(l.outer, unix.SHUT_RDWR) }

// Close closes the builder's end.
func (l *Line) Close() error { return unix.Close(l.outer) }
