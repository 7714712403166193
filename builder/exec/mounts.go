package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/solve"
	"github.com/shale-build/shale/internal/confine"
	"github.com/shale-build/shale/internal/rmtree"
	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/runtime/sandbox"
)

// mountSet is the set of mounts of one step. Their sources are bind mounted to paths in a
// private directory, which processes in the container cannot change.
type mountSet struct {
	exec   *Executor
	dir    string
	vertex *llb.Vertex
	inputs []solve.Snapshot

	list    []sandbox.Mount
	shmSize int64
	// masked are the secrets that the step can read.
	masked    [][]byte
	memoryDir string
	undo      []func() error
}

// prepare prepares the sources of all mounts except the root. The caller must close the
// set, also after an error.
func (s *mountSet) prepare(ctx context.Context) error {
	for i, m := range s.vertex.Exec.GetMounts() {
		if m.GetDest() == pb.RootMount {
			continue
		}
		if err := s.add(ctx, i, m); err != nil {
			return err
		}
	}
	return nil
}

func (s *mountSet) add(ctx context.Context, i int, m *pb.Mount) error {
	at := func(err error) error {
		if _, named := errors.AsType[*sourceError](err); named || err == nil {
			return err
		}
		return fmt.Errorf("mount at %s: %w", m.GetDest(), err)
	}
	switch m.GetMountType() {
	case pb.MountType_BIND:
		return at(s.bind(ctx, i, m))
	case pb.MountType_CACHE:
		return at(s.cache(ctx, i, m))
	case pb.MountType_TMPFS:
		s.tmpfs(m)
		return nil
	case pb.MountType_SECRET:
		return s.secret(i, m)
	case pb.MountType_SSH:
		return s.ssh(ctx, i, m)
	}
	return &UnsupportedError{What: "a mount of type " + m.GetMountType().String(), Why: "this version does not know it"}
}

func (s *mountSet) tmpfs(m *pb.Mount) {
	size := m.GetTmpfsOpt().GetSize()
	if filepath.Clean(m.GetDest()) == "/dev/shm" {
		s.shmSize = size // --shm-size
		return
	}
	s.list = append(s.list, sandbox.Mount{Type: sandbox.Tmpfs, Target: m.GetDest(), Size: size})
}

// bind mounts files of another stage, an image or a build context. Changes that the step
// makes to them are discarded.
func (s *mountSet) bind(ctx context.Context, i int, m *pb.Mount) error {
	if llb.HasOutput(m) {
		return &UnsupportedError{What: "a second result of RUN", Why: "only the root file system is kept"}
	}
	lowers, selector, err := s.source(ctx, m)
	if err != nil {
		return err
	}
	root, err := s.exec.Mounts.ViewOf(lowers)
	if err != nil {
		return err
	}
	if !m.GetReadonly() && !s.exec.Mounts.InPlace() {
		scratch, release, err := s.exec.Mounts.ScratchOf(ctx, lowers)
		if err != nil {
			return err
		}
		s.undo = append(s.undo, release)
		root = scratch
	}
	return s.attach(i, root, selector, m)
}

// source returns the directories of m's input, topmost first, and the path to mount from
// them.
func (s *mountSet) source(ctx context.Context, m *pb.Mount) (lowers []string, selector string, err error) {
	if m.GetInput() < 0 {
		return nil, m.GetSelector(), nil
	}
	snap := s.inputs[m.GetInput()]
	if snap.Tree == nil {
		lowers, err = s.exec.Mounts.Lowers(snap.Layer)
		return lowers, m.GetSelector(), err
	}
	dir, selector, err := s.exec.materialize(ctx, snap.Tree, m.GetSelector())
	return []string{dir}, selector, err
}

// cache mounts a cache directory that is kept after the build.
func (s *mountSet) cache(ctx context.Context, i int, m *pb.Mount) error {
	req := cachemount.Request{ID: m.GetCacheOpt().GetID()}
	switch m.GetCacheOpt().GetSharing() {
	case pb.CacheSharingOpt_SHARED:
		req.Sharing = cachemount.Shared
	case pb.CacheSharingOpt_PRIVATE:
		req.Sharing = cachemount.Private
	case pb.CacheSharingOpt_LOCKED:
		req.Sharing = cachemount.Locked
	}
	if m.GetInput() >= 0 {
		if err := s.seed(ctx, &req, m); err != nil {
			return err
		}
	}
	lease, err := s.exec.Caches.Acquire(ctx, req)
	if err != nil {
		return err
	}
	s.undo = append(s.undo, lease.Release)
	if owners := s.exec.Mounts.Owners(); owners != nil {
		if err := owners.RestoreLinks(cachemount.Links(lease.Dir)); err != nil {
			return err
		}
		if !m.GetReadonly() {
			s.undo = append(s.undo, func() error { return owners.SaveLinks(lease.Dir, cachemount.Links(lease.Dir)) })
		}
	}
	inside := "" // with a seed, the selector names the initial content instead
	if m.GetInput() < 0 {
		inside = m.GetSelector()
	}
	return s.attach(i, lease.Dir, inside, m)
}

// seed sets the initial content of a cache mount to a copy of the selected directory of
// the input.
func (s *mountSet) seed(ctx context.Context, req *cachemount.Request, m *pb.Mount) error {
	lowers, selector, err := s.source(ctx, m)
	if err != nil {
		return err
	}
	root, err := s.exec.Mounts.ViewOf(lowers)
	if err != nil {
		return err
	}
	snap := s.inputs[m.GetInput()]
	req.Seed = snap.Chain.String() + strconv.Quote(m.GetSelector())
	if in := s.vertex.Inputs[m.GetInput()].Vertex; in.File != nil && len(in.Inputs) == 0 {
		// This input only makes directories (uid=, gid=, mode=). Its digest describes
		// them completely. Unlike their modification times, the digest is the same on
		// every machine.
		req.Seed = in.Digest.String() + strconv.Quote(m.GetSelector())
	}
	if snap.Tree != nil {
		dgst, err := snap.Tree.Digest(ctx, treeSelection(m.GetSelector()))
		if err != nil {
			return err
		}
		req.Seed = dgst.String()
	}
	req.Fill = func(ctx context.Context, dir string) error {
		return copySeed(ctx, root, selector, dir, s.exec.Mounts.Owners())
	}
	return nil
}

// attach bind mounts the path selector inside root to a private path, and adds the mount
// to the list.
func (s *mountSet) attach(i int, root, selector string, m *pb.Mount) error {
	source, err := openInRoot(root, selector)
	if err != nil {
		return err
	}
	defer source.Close()
	if s.exec.Mounts.InPlace() {
		// No process is running that could replace a component of the path.
		path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(source.Fd())))
		if err != nil {
			return fmt.Errorf("find the mount's source: %w", err)
		}
		s.list = append(s.list, sandbox.Mount{
			Type: sandbox.Bind, Source: path, Target: m.GetDest(), Kept: m.GetMountType() == pb.MountType_CACHE && !m.GetReadonly(),
		})
		return nil
	}
	target, err := s.bindOwn(strconv.Itoa(i), source, overlay.BindOptions{ReadOnly: m.GetReadonly()})
	if err != nil {
		return err
	}
	s.list = append(s.list, sandbox.Mount{
		Type: sandbox.Bind, Source: target, Target: m.GetDest(), ReadOnly: m.GetReadonly(),
	})
	return nil
}

// bindOwn bind mounts source to a path in the step's private directory and returns that
// path.
func (s *mountSet) bindOwn(name string, source *os.File, opts overlay.BindOptions) (string, error) {
	target := filepath.Join(s.dir, name)
	if err := mountPoint(source, target); err != nil {
		return "", err
	}
	if err := overlay.Bind(source, target, opts); err != nil {
		return "", err
	}
	s.undo = append(s.undo, func() error { return overlay.Unmount(target) })
	return target, nil
}

// mountPoint creates target as a directory or as a file, depending on source.
func mountPoint(source *os.File, target string) error {
	info, err := source.Stat()
	if err != nil {
		return fmt.Errorf("look at the mount's source: %w", err)
	}
	if info.IsDir() {
		err = os.Mkdir(target, 0o700)
	} else {
		err = os.WriteFile(target, nil, 0o600)
	}
	if err != nil {
		return fmt.Errorf("make a place for the mount: %w", err)
	}
	return nil
}

// sourceError is returned if the source of a mount does not have the path. The message is
// docker's.
type sourceError struct{ path string }

func (e *sourceError) Error() string { return fmt.Sprintf("%q: not found", e.path) }

// openInRoot opens path inside root. Symbolic links are resolved as for a process with
// root as its root directory. It returns a sourceError if the path does not exist.
func openInRoot(root, path string) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	defer unix.Close(dir) //nolint:errcheck // O_PATH: nothing to flush
	fd, err := confine.Open(dir, filepath.Clean("/"+path), unix.O_PATH, 0, confine.InRoot|confine.NoMagicLinks)
	if errors.Is(err, unix.ENOENT) {
		return nil, &sourceError{path: filepath.Clean("/" + path)}
	}
	if err != nil {
		return nil, fmt.Errorf("open %q in the mount's source: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// close undoes all mounts in reverse order.
func (s *mountSet) close() error {
	var errs []error
	for _, v := range slices.Backward(s.undo) {
		errs = append(errs, v())
	}
	return errors.Join(append(errs, rmtree.Remove(s.dir))...)
}
