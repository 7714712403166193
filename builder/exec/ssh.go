package exec

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/runtime/sandbox"
)

// ssh mounts the socket of an ssh agent. The agent answers until the step ends. If the
// build has no agent for an optional mount, nothing is mounted.
func (s *mountSet) ssh(ctx context.Context, i int, m *pb.Mount) error {
	opt := m.GetSSHOpt()
	if err := s.exec.Agents.Find(opt.GetID()); err != nil {
		if opt.GetOptional() {
			return nil
		}
		return err
	}
	dir, err := s.memory()
	if err != nil {
		return err
	}
	socket, err := s.exec.Agents.Listen(ctx, opt.GetID(), filepath.Join(dir, strconv.Itoa(i)))
	if err != nil {
		return err
	}
	s.undo = append(s.undo, socket.Close)
	if err := s.exec.own(socket.Path, opt.GetUid(), opt.GetGid()); err != nil {
		return fmt.Errorf("ssh agent %q: %w", opt.GetID(), err)
	}
	if err := socket.Chmod(fs.FileMode(opt.GetMode())); err != nil {
		return err
	}
	s.list = append(s.list, sandbox.Mount{Type: sandbox.Bind, Source: socket.Path, Target: m.GetDest(), NoSUID: true, NoExec: true, InMemory: true})
	return nil
}
