package recorded

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/sandbox/initproc"
)

// Line is where a container's first process gets its filter and whence it sends
// the listener.
type Line struct {
	// Inner is for the process, as its first descriptor after the standard
	// ones. The caller closes it once the process has started or failed to.
	Inner *os.File
	outer int
}

// NewLine offers the filter of a tier for a step that sees files of owners. overlay
// is whether they are copied up when the step changes them.
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

// ErrNoListener tells that the container ended before it sent a listener.
var ErrNoListener = errors.New("no listener")

// Listener waits for the descriptor of notifications.
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

// HangUp makes Listener return.
func (l *Line) HangUp() { _ = unix.Shutdown(l.outer, unix.SHUT_RDWR) }

// Close releases the builder's end.
func (l *Line) Close() error { return unix.Close(l.outer) }
