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

	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"
)

// Socket serves one agent until it is closed.
type Socket struct {
	// Path is what SSH_AUTH_SOCK of the borrower names.
	Path string

	listener net.Listener
	open     opener
	serving  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[io.Closer]bool
}

// Listen makes the socket path, which only its owner may connect to, and serves
// the agent called id on it. The caller closes it when the borrower has ended:
// then every connection is cut. The directory of path may be as deep as it
// likes.
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

// listen reaches the directory through a descriptor: a socket's name is at most
// 108 bytes (unix(7)).
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
	l.SetUnlinkOnClose(false) // by a name that means something else by then
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Chmod says who may connect.
func (s *Socket) Chmod(mode os.FileMode) error {
	if err := os.Chmod(s.Path, mode.Perm()); err != nil {
		return fmt.Errorf("give the ssh agent's socket its mode: %w", err)
	}
	return nil
}

func (s *Socket) accept(ctx context.Context) {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ECONNABORTED) {
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

// serve ends with the borrower's side of the connection or the agent's.
func (s *Socket) serve(ctx context.Context, conn net.Conn) {
	defer s.drop(conn)
	keys, end, err := s.open(ctx)
	if err != nil {
		return // ssh says that it cannot talk to the agent
	}
	if !s.hold(end) {
		return
	}
	defer s.drop(end)
	_ = agent.ServeAgent(borrowed{keys}, conn) // the borrower hanging up is its end
}

// hold remembers what Close has to cut. When that was done already, it cuts at
// once and returns false.
func (s *Socket) hold(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close() // nothing was written to it
		return false
	}
	s.conns[c] = true
	return true
}

func (s *Socket) drop(c io.Closer) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	_ = c.Close() // every request was answered or cut
}

// Close ends serving, cuts all connections and removes the socket.
func (s *Socket) Close() error {
	s.mu.Lock()
	s.closed = true
	conns := s.conns
	s.conns = map[io.Closer]bool{}
	s.mu.Unlock()
	err := s.listener.Close()
	for c := range conns {
		_ = c.Close() // cut on purpose
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
