package frontend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"

	buildkitllb "github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/shale-build/shale/builder/llb"
)

// ref is the result of a Solve: a definition that is evaluated when it is read.
type ref struct {
	def  *pb.Definition
	cell *cell
	from *roots
}

var _ client.Reference = (*ref)(nil)

func newRef(def *pb.Definition, from *roots) *ref {
	// The last entry refers to the result by its digest, so its own digest identifies the
	// whole definition.
	head := digest.FromBytes(def.Def[len(def.Def)-1])
	return &ref{def: def, cell: from.cell(head), from: from}
}

func (r *ref) root(ctx context.Context) (Root, error) {
	defer r.from.activity.begin()()
	r.cell.mu.Lock()
	defer r.cell.mu.Unlock()
	if r.cell.root != nil {
		return r.cell.root, nil
	}
	root, err := r.from.evaluate(ctx, r.def)
	if err != nil {
		return nil, err
	}
	r.cell.root = root
	return root, nil
}

// ToState returns the definition as a state of package client/llb of BuildKit.
func (r *ref) ToState() (buildkitllb.State, error) {
	op, err := buildkitllb.NewDefinitionOp(r.def)
	if err != nil {
		return buildkitllb.State{}, fmt.Errorf("convert a reference: %w", err)
	}
	return buildkitllb.NewState(op), nil
}

func (r *ref) Evaluate(ctx context.Context) error {
	_, err := r.root(ctx)
	return err
}

func (r *ref) ReadFile(ctx context.Context, req client.ReadRequest) ([]byte, error) {
	root, err := r.root(ctx)
	if err != nil {
		return nil, err
	}
	var offset, length int64
	if req.Range != nil {
		offset, length = int64(req.Range.Offset), int64(req.Range.Length)
	}
	data, err := root.ReadFile(req.Filename, offset, length)
	// The front end also looks for the name in lower case.
	if err == nil && strings.EqualFold(req.Filename, r.from.dockerfile) {
		r.from.args.read(data)
		data = r.from.names.read(data)
	}
	return data, err
}

func (r *ref) StatFile(ctx context.Context, req client.StatRequest) (*fstypes.Stat, error) {
	root, err := r.root(ctx)
	if err != nil {
		return nil, err
	}
	info, err := root.StatFile(req.Path)
	if err != nil {
		return nil, err
	}
	return stat(info), nil
}

func (r *ref) ReadDir(ctx context.Context, req client.ReadDirRequest) ([]*fstypes.Stat, error) {
	root, err := r.root(ctx)
	if err != nil {
		return nil, err
	}
	infos, err := root.ReadDir(req.Path)
	if err != nil {
		return nil, err
	}
	var list []*fstypes.Stat
	for _, info := range infos {
		if req.IncludePattern != "" {
			ok, err := path.Match(req.IncludePattern, info.Name())
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
		}
		list = append(list, stat(info))
	}
	return list, nil
}

func stat(info fs.FileInfo) *fstypes.Stat {
	return &fstypes.Stat{
		Path:    info.Name(),
		Mode:    uint32(info.Mode()),
		Size:    info.Size(),
		ModTime: info.ModTime().UnixNano(),
	}
}

// cell holds the root of a definition after it was evaluated. An error is not stored,
// because it may be from a cancelled context.
type cell struct {
	mu   sync.Mutex
	root Root
}

// roots are the evaluated definitions of one run.
type roots struct {
	local map[string]Root
	svc   Services

	mu    sync.Mutex
	cells map[digest.Digest]*cell
	owned []Root

	// dockerfile is the name of the Dockerfile. args and names get its content when it is
	// read.
	dockerfile string
	args       *declared
	names      *spellings

	activity *activity
}

func (r *roots) cell(head digest.Digest) *cell {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.cells[head]
	if c == nil {
		c = &cell{}
		r.cells[head] = c
	}
	return c
}

// evaluate makes the files of a definition readable. Local directories and a context from
// standard input are read directly.
func (r *roots) evaluate(ctx context.Context, def *pb.Definition) (Root, error) {
	graph, err := llb.Decode(def)
	if err != nil {
		return nil, err
	}
	v := graph.Target.Vertex
	if v == nil {
		return memRoot{}, nil
	}
	if v.Source != nil {
		root, err := r.source(v)
		if root != nil || err != nil {
			return root, err
		}
	}
	if r.svc.Evaluator == nil {
		return nil, llb.WithSource(fmt.Errorf("read from %s: %w", v.Name, errNoService), v)
	}
	root, err := r.svc.Evaluator.Evaluate(ctx, graph)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.owned = append(r.owned, root)
	r.mu.Unlock()
	return root, nil
}

// source returns the root of a source that can be read directly, or nil for other
// sources.
func (r *roots) source(v *llb.Vertex) (Root, error) {
	scheme, key := llb.SplitSource(v.Source)
	if scheme != llb.SchemeLocal {
		key = v.Source.Identifier
		if key != StdinURL {
			return nil, nil
		}
	}
	step := startStep(r.svc.Progress, v.Name)
	root, ok := r.local[key]
	var err error
	if !ok {
		err = fmt.Errorf("no context is named %q", key)
	}
	step.done(err)
	return root, err
}

func (r *roots) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, root := range r.owned {
		errs = append(errs, root.Close())
	}
	for _, root := range r.local {
		errs = append(errs, root.Close())
	}
	return errors.Join(errs...)
}

// spooled is the Root of a context archive in a file. It holds a single file, as the http
// source stores a download under the name in the attribute http.filename.
type spooled struct {
	name string
	path string
}

func (s spooled) ReadFile(name string, offset, length int64) ([]byte, error) {
	if path.Clean("/"+name) != "/"+s.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return readPlain(s.path, offset, length)
}

func (s spooled) StatFile(name string) (fs.FileInfo, error) {
	if path.Clean("/"+name) != "/"+s.name {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	size, err := sizePlain(s.path)
	return memInfo{name: s.name, size: size}, err
}

func (s spooled) ReadDir(string) ([]fs.FileInfo, error) {
	size, err := sizePlain(s.path)
	return []fs.FileInfo{memInfo{name: s.name, size: size}}, err
}

func (spooled) Close() error { return nil }

var _ Root = spooled{}
