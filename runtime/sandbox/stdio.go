package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/runc/libcontainer/utils"
	"golang.org/x/sys/unix"
)

// stdio connects the command's standard streams to the caller's. The command never gets a
// file descriptor of the caller: if it were a terminal, the command could insert input
// into it (TIOCSTI).
type stdio struct {
	stdin, stdout, stderr *os.File // the container's ends

	in  io.Reader
	inW *os.File

	copies  sync.WaitGroup
	copyErr error
	mu      sync.Mutex
	outputs []output
	head    headWriter // the beginning of stderr
	command string

	terminal                  bool
	consoleChild, consoleHost *os.File
	resize                    <-chan WinSize
	ended                     chan struct{}
	endOnce                   sync.Once
}

type output struct {
	from *os.File
	to   io.Writer
}

func newStdio(s *Spec) (*stdio, error) {
	sio := &stdio{in: s.Stdin, command: s.Args[0], terminal: s.Terminal, resize: s.Resize, ended: make(chan struct{})}
	err := sio.open(s)
	if err != nil {
		sio.close()
		return nil, fmt.Errorf("prepare standard streams: %w", err)
	}
	return sio, nil
}

func (sio *stdio) open(s *Spec) (err error) {
	if s.Terminal {
		sio.outputs = []output{{to: orDiscard(s.Stdout)}}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		sio.consoleHost = os.NewFile(uintptr(fds[0]), "console-host")
		sio.consoleChild = os.NewFile(uintptr(fds[1]), "console-container")
		return nil
	}
	if s.Stdin == nil {
		sio.stdin, err = os.Open(os.DevNull)
	} else {
		sio.stdin, sio.inW, err = os.Pipe()
	}
	if err != nil {
		return err
	}
	if sio.stdout, err = sio.pipe(orDiscard(s.Stdout)); err != nil {
		return err
	}
	if same(s.Stdout, s.Stderr) {
		// One pipe keeps the order of writes to both.
		sio.outputs[0].to = io.MultiWriter(&sio.head, sio.outputs[0].to)
		sio.stderr = sio.stdout
		return nil
	}
	sio.stderr, err = sio.pipe(io.MultiWriter(&sio.head, orDiscard(s.Stderr)))
	return err
}

func (sio *stdio) pipe(to io.Writer) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	sio.outputs = append(sio.outputs, output{r, to})
	return w, nil
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// same reports whether a and b are the same writer. As in os/exec, writers of a type that
// cannot be compared are different.
func same(a, b io.Writer) (equal bool) {
	defer func() {
		if recover() != nil {
			equal = false
		}
	}()
	return a != nil && a == b
}

// started closes the container's ends in this process and starts to copy. It must be
// called after the container has started.
func (sio *stdio) started() {
	closeAll(&sio.stdin, &sio.stdout, &sio.stderr, &sio.consoleChild)
	if sio.terminal {
		sio.attachTerminal()
		return
	}
	for _, o := range sio.outputs {
		sio.copies.Go(func() { sio.copyOut(o.to, o.from) })
	}
	if sio.inW != nil {
		go func() {
			_, _ = io.Copy(sio.inW, sio.in) // the command may not read all input
			_ = sio.inW.Close()
		}()
	}
}

// copyOut copies the output. If writing fails, it still reads the rest, because otherwise
// the command would block forever on a full pipe.
func (sio *stdio) copyOut(to io.Writer, from *os.File) {
	_, err := io.Copy(to, from)
	if err == nil || errors.Is(err, unix.EIO) || errors.Is(err, os.ErrClosed) {
		return // a terminal that was hung up returns EIO
	}
	sio.mu.Lock()
	sio.copyErr = errors.Join(sio.copyErr, fmt.Errorf("copy output: %w", err))
	sio.mu.Unlock()
	_, _ = io.Copy(io.Discard, from)
}

func (sio *stdio) attachTerminal() {
	master, err := utils.RecvFile(sio.consoleHost) //nolint:staticcheck // what replaces it is internal to runc
	if err != nil {
		sio.copyErr = fmt.Errorf("receive terminal: %w", err)
		return
	}
	sio.outputs[0].from = master
	sio.copies.Go(func() { sio.copyOut(sio.outputs[0].to, master) })
	if sio.in != nil {
		go func() { _, _ = io.Copy(master, sio.in) }() // ends when the terminal is closed
	}
	if sio.resize != nil {
		go sio.follow(master)
	}
}

func (sio *stdio) follow(master *os.File) {
	for {
		select {
		case <-sio.ended:
			return
		case size, ok := <-sio.resize:
			if !ok {
				return
			}
			_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: size.Width, Row: size.Height})
		}
	}
}

// wait returns when all output was copied. The container's processes must have ended.
func (sio *stdio) wait() error {
	sio.copies.Wait()
	sio.mu.Lock()
	defer sio.mu.Unlock()
	return sio.copyErr
}

func (sio *stdio) close() {
	sio.endOnce.Do(func() { close(sio.ended) })
	closeAll(&sio.stdin, &sio.stdout, &sio.stderr, &sio.consoleChild, &sio.consoleHost)
	for _, o := range sio.outputs {
		if o.from != nil {
			_ = o.from.Close() // all output was read
		}
	}
	if sio.inW != nil {
		_ = sio.inW.Close() // may have been closed at the end of the input
	}
}

func closeAll(files ...**os.File) {
	for _, f := range files {
		if *f != nil {
			_ = (*f).Close() // stdout and stderr may be one file
			*f = nil
		}
	}
}

// headWriter keeps the first 4096 bytes. If more are written, over is set.
type headWriter struct {
	buf  bytes.Buffer
	over bool
}

func (h *headWriter) Write(p []byte) (int, error) {
	if h.buf.Len()+len(p) > 4096 {
		h.over = true
	}
	if !h.over {
		h.buf.Write(p)
	}
	return len(p), nil
}

// execFailure returns an *ExecError if execve(2) failed after the container was complete;
// otherwise it returns nil. For example, the program is for another architecture, or its
// interpreter is missing. At that point the init process can report the error only on its
// standard error.
func (sio *stdio) execFailure(code int) *ExecError {
	text := sio.head.buf.String()
	if code != 255 || sio.head.over || strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "exec ") {
		return nil
	}
	text = strings.TrimSpace(text)
	for _, why := range []syscall.Errno{unix.ENOEXEC, unix.ENOENT, unix.EACCES, unix.E2BIG, unix.ELIBBAD} {
		if strings.HasSuffix(text, ": "+why.Error()) {
			e := &ExecError{Code: 126, Message: text}
			if why == unix.ENOENT {
				e.Code = 127
			}
			return e
		}
	}
	return nil
}
