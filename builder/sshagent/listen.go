package sshagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"
)

// Socket serves one agent until it is closed.
type Socket struct {
	// Path is the path of the socket, for SSH_AUTH_SOCK of the step or of git.
	Path string

	listener net.Listener
	open     opener
	serving  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[io.Closer]bool
}

// Listen creates a socket at path and serves the agent called id on it. Only the owner of
// the socket may connect. The caller must call Close when the process that uses the agent
// has ended; Close also closes all connections. The path may be longer than the limit for
// sockets.
func (a *Agents) Listen(ctx context.Context, id, path string) (*Socket, error) {
	if err := a.Find(id); err != nil {
		return nil, err
	}
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("listen for ssh agent %q: %w", id, err)
	}
	s := &Socket{Path: path, listener: l, open: a.opener(id), conns: map[io.Closer]bool{}}
	s.serving.Go(func() { s.accept(ctx) })
	return s, nil
}

// listen opens the directory and uses the path of its file descriptor, because the name
// of a socket is limited to 108 bytes (unix(7)).
func listen(path string) (net.Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	short := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the name below /proc/self/fd is invalid by then
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Chmod sets the mode of the socket, which decides who may connect.
func (s *Socket) Chmod(mode os.FileMode) error {
	if err := os.Chmod(s.Path, mode.Perm()); err != nil {
		return fmt.Errorf("give the ssh agent's socket its mode: %w", err)
	}
	return nil
}

// acceptPause is the time between two tries if there are no file descriptors.
const acceptPause = 50 * time.Millisecond

func (s *Socket) accept(ctx context.Context) {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if errors.Is(err, unix.ECONNABORTED) {
				continue
			}
			if errors.Is(err, unix.EMFILE) {
				// Other connections must end first.
				time.Sleep(acceptPause)
				continue
			}
			return
		}
		if !s.hold(conn) {
			return
		}
		s.serving.Go(func() { s.serve(ctx, conn) })
	}
}

// serve ends when either side closes its connection.
func (s *Socket) serve(ctx context.Context, conn net.Conn) {
	defer s.drop(conn)
	keys, end, err := s.open(ctx)
	if err != nil {
		return // the client reports that the agent does not answer
	}
	if !s.hold(end) {
		return
	}
	defer s.drop(end)
	_ = agent.ServeAgent(borrowed{keys}, conn) // the error is only that the client hung up
}

// hold records a connection that Close must close. If the socket is already closed, hold
// closes the connection and returns false.
func (s *Socket) hold(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close() // no data was written
		return false
	}
	s.conns[c] = true
	return true
}

func (s *Socket) drop(c io.Closer) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	_ = c.Close() // all requests are complete
}

// Close stops serving, closes all connections and removes the socket.
func (s *Socket) Close() error {
	s.mu.Lock()
	s.closed = true
	conns := s.conns
	s.conns = map[io.Closer]bool{}
	s.mu.Unlock()
	err := s.listener.Close()
	for c := range conns {
		_ = c.Close() // deliberate, so the error does not matter
	}
	s.serving.Wait()
	if removed := os.Remove(s.Path); removed != nil && !errors.Is(removed, os.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	if err != nil {
		return fmt.Errorf("close the ssh agent's socket: %w", err)
	}
	return nil
}
