package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/exec"
	"github.com/shale-build/shale/builder/explain"
	"github.com/shale-build/shale/builder/export"
	"github.com/shale-build/shale/builder/frontend"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/progress"
	"github.com/shale-build/shale/builder/rootfs"
	"github.com/shale-build/shale/builder/secrets"
	"github.com/shale-build/shale/builder/solve"
	"github.com/shale-build/shale/builder/source"
	"github.com/shale-build/shale/builder/source/local"
	"github.com/shale-build/shale/builder/sshagent"
	"github.com/shale-build/shale/storage"
)

// Names of directories in the state directory of the store that outlive a build: the
// index of package cache and the directories of package cachemount.
const (
	CacheState      = "cache"
	CacheMountState = "cachemounts"
)

// explainState is the directory in which package explain records the inputs of steps. It
// may be removed if the disk is full, see storage.Location.OpenToRemove.
const explainState = storage.ExplainState

// tempState is the directory that holds the temporary directories of running builds.
const tempState = "tmp"

// build is the state of one call of Build.
type build struct {
	opts Options
	deps Deps
	outs []output
	// caller is the context that was passed to Build. whole may end later than caller, so
	// that caches can still be exported, see lasting.
	caller, whole context.Context //nolint:containedctx // see Build

	work    *rootfs.Workspace
	mounts  *rootfs.Mounter
	index   *cache.Index
	keeper  *keeper
	caches  *cachemount.Caches
	files   *local.Index
	inputs  *frontend.Inputs
	allowed exec.Allowed
	// secrets and agents are looked up by ID, by steps and by sources.
	secrets  *secrets.Store
	agents   *sshagent.Agents
	images   *source.Images
	steps    *exec.Executor
	sources  *source.Sources
	executor *executor
	solver   *solve.Solver

	cacheSources []cacheSource
	cacheTargets []cacheTarget

	closers []func() error
}

// Build carries out the build that opts describe. An error about the Dockerfile carries
// its position in the file, and frontend.PrintError shows it. If the error wraps an
// exec.ExitError, that holds the exit status of the failed process. Apart from its
// outputs, Build leaves only layers that the build cache refers to.
func Build(ctx context.Context, opts Options, deps Deps) (_ *Result, err error) {
	b := &build{opts: opts, deps: deps, caller: ctx}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var release func()
	b.whole, release = lasting(b.caller, b.exportTime()) // ends early only if the caller wants it
	defer release()
	defer func() {
		if b.caller.Err() != nil {
			release() // nothing uses the layers that are still being packed
		}
		err = b.end(err)
		b.collect(b.caller, err)
	}()
	if err := b.open(ctx, cancel); err != nil {
		return nil, err
	}
	return b.run(ctx)
}

// end closes the build and returns its error; err is the error so far. If another program
// removed the store or a layer that the build depends on, steps may fail for that reason.
// Their errors and exit statuses would then mislead the user. In that case end returns an
// error that wraps storage.ErrRemoved, and not err.
func (b *build) end(err error) error {
	closed := b.close()
	if err == nil || b.mounts == nil || b.caller.Err() != nil {
		return errors.Join(err, closed)
	}
	cause := b.mounts.Removed()
	if cause == nil {
		return errors.Join(b.deps.Store.NoSpace(err, b.places()...), closed)
	}
	b.deps.Logger.Debug("the build ended because another program removed layers", "error", errors.Join(err, closed))
	first, _, _ := strings.Cut(err.Error(), "\n")
	return fmt.Errorf("%w: build again (%s)", cause, first)
}

// places returns the paths outside the store to which the outputs are written.
func (b *build) places() (paths []string) {
	for _, o := range b.outs {
		if o.Dest != "" && o.Dest != "-" {
			paths = append(paths, o.Dest)
		}
	}
	return paths
}

func (b *build) open(ctx context.Context, abort context.CancelCauseFunc) error {
	var err error
	if err := b.checkTags(); err != nil {
		return &frontend.InputError{Err: err}
	}
	if b.outs, err = readOutputs(b.opts); err != nil {
		return &frontend.InputError{Err: err}
	}
	if b.cacheSources, b.cacheTargets, err = openRemotes(b.opts); err != nil {
		return err
	}
	if err := b.openGrants(); err != nil {
		return &frontend.InputError{Err: err}
	}
	if err := checkDelete(b.outs, b.allowed.LocalDelete); err != nil {
		return &frontend.InputError{Err: err}
	}
	if err := b.openState(); err != nil {
		return err
	}
	b.opts.TempDir = b.work.Dir
	if b.inputs, err = frontend.Open(ctx, b.opts.Options); err != nil {
		return err
	}
	b.closers = append(b.closers, b.inputs.Close)
	b.keeper = newKeeper(b.deps.Store)
	b.closers = append(b.closers, b.keeper.close)
	b.images = source.NewImages(b.deps.Store, b.deps.Registry, b.keeper, b.deps.Logger)
	if b.sources, err = b.openSources(); err != nil {
		return err
	}
	if b.executor, err = b.newExecutor(); err != nil {
		return err
	}
	b.solver = solve.New(b.whole, b.executor, b.index, b.deps.Progress, b.deps.Logger, abort) //nolint:contextcheck // see whole
	b.importCaches(ctx)
	return b.openTrail()
}

// openTrail makes the solver record the inputs of steps, so that a later build can
// explain why a step ran again. Builds of the same Dockerfile in the same context are
// compared with each other.
func (b *build) openTrail() error {
	dir, err := b.deps.Store.StateDir(explainState)
	if err != nil {
		return err
	}
	where := b.opts.Context
	if abs, err := filepath.Abs(where); err == nil && where != "-" && !strings.Contains(where, "://") {
		where = abs
	}
	trail := explain.NewStore(dir, where+"\x00"+b.opts.Dockerfile)
	b.closers = append(b.closers, func() error { return trail.Tidy(time.Now()) })
	b.solver.Explain(trail)
	return nil
}

func (b *build) checkTags() error {
	for _, tag := range b.opts.Tags {
		if _, err := parseTag(tag); err != nil {
			return err
		}
	}
	return nil
}

// openGrants parses what steps are allowed to do, and opens the secrets and agents of the
// user. It runs before anything is built, so that missing ones are reported early.
func (b *build) openGrants() (err error) {
	allow := b.opts.Allow
	if b.opts.Network == "host" {
		allow = append([]string{"network.host"}, allow...) // like docker
	}
	if b.allowed, err = exec.ParseAllow(allow); err != nil {
		return err
	}
	if b.secrets, err = secrets.New(b.opts.Secrets, os.LookupEnv); err != nil {
		return err
	}
	if b.deps.Place != nil {
		// While a step runs, the same paths show files of the image, so the secrets must
		// be read now.
		if err := b.secrets.Load(); err != nil {
			return err
		}
	}
	b.agents, err = sshagent.New(b.withOwnAgent(b.opts.SSH), os.LookupEnv)
	return err
}

// openState opens the directories in which a build keeps its own state beside the layers.
func (b *build) openState() error {
	b.deps.Store.Sweep()
	tmp, err := b.deps.Store.StateDir(tempState)
	if err != nil {
		return err
	}
	if b.work, err = rootfs.OpenWorkspace(b.whole, tmp); err != nil {
		return err
	}
	b.mounts = rootfs.New(b.whole, b.deps.Store, b.work.Dir, b.deps.Owners, b.deps.Logger)
	if b.deps.NoMounts {
		b.mounts.MountNothing(b.deps.Place)
	}
	dir, err := b.deps.Store.StateDir(CacheState)
	if err != nil {
		return err
	}
	b.index = cache.Open(dir)
	b.files = local.OpenIndex(filepath.Join(dir, "files"))
	b.closers = append(b.closers, b.files.Close)
	return nil
}

// newExecutor returns an executor that uses the stores and services of the build.
func (b *build) newExecutor() (*executor, error) {
	caches, err := b.deps.Store.StateDir(CacheMountState)
	if err != nil {
		return nil, err
	}
	b.caches = cachemount.New(caches)
	b.steps = &exec.Executor{
		Mounts: b.mounts, Runner: b.deps.Runner, Caches: b.caches,
		Network: b.deps.Network, Allowed: b.allowed,
		SingleID: b.deps.SingleID, Ownership: b.deps.Ownership, Secrets: b.secrets, Agents: b.agents, Logger: b.deps.Logger,
	}
	return &executor{
		store: b.deps.Store, keeper: b.keeper, mounts: b.mounts, run: b.steps, sources: b.sources, own: b.deps.Own, logger: b.deps.Logger,
	}, nil
}

func (b *build) run(ctx context.Context) (*Result, error) {
	res, err := frontend.Build(ctx, b.inputs, frontend.Services{
		Images: b.images, Layouts: source.Layouts{Registry: b.deps.Registry}, Evaluator: evaluator{b}, Progress: b.deps.Progress,
		HTTP: b.sources, Git: b.sources,
	})
	if err != nil {
		return nil, err
	}
	if res.Call != nil {
		return reported(res), nil
	}
	done, err := b.solve(ctx, res)
	layers := &export.Layers{Maker: b.deps.Registry.Maker(), Origin: b.origin}
	var out *Result
	if err == nil {
		out, err = b.finish(ctx, &done, layers)
	}
	if err != nil {
		b.exportIncomplete(done, layers)
		return nil, err
	}
	if err := b.exportCaches(done, layers); err != nil {
		return nil, err
	}
	out.Warnings, out.UnusedArgs = len(res.Warnings), res.UnusedArgs
	return out, nil
}

// finish writes the result to each requested output.
func (b *build) finish(ctx context.Context, done *finished, layers *export.Layers) (*Result, error) {
	release, err := b.own()
	if err != nil {
		return nil, err
	}
	defer release()
	if b.deps.Place != nil {
		b.deps.Place.Discard()
	}
	if b.opts.Squash {
		if err := b.squash(ctx, done); err != nil {
			return nil, err
		}
	}
	return b.outputs(ctx, *done, layers)
}

// own keeps the container's own files in place until release is called, see Deps.Own.
func (b *build) own() (release func(), err error) {
	if b.deps.Own == nil {
		return func() {}, nil
	}
	return b.deps.Own()
}

// solve makes the layers of all platforms in parallel. Steps that several platforms share
// run once.
func (b *build) solve(ctx context.Context, res *frontend.Result) (finished, error) {
	list := b.distinct(res.Platforms)
	f := finished{
		Build: export.Build{Platforms: make([]export.Platform, len(list)), Multi: res.MultiPlatform},
		tops:  make([]string, len(list)),
	}
	for _, p := range list {
		if err := b.steps.Check(p.Graph); err != nil {
			return f, err
		}
		f.graphs = append(f.graphs, p.Graph)
	}
	b.mounts.Expect(commands(f.graphs))
	group, ctx := errgroup.WithContext(ctx)
	for i, p := range list {
		group.Go(func() (err error) {
			f.Platforms[i], f.tops[i], err = b.solvePlatform(ctx, p)
			return err
		})
	}
	return f, group.Wait()
}

// commands returns the number of different RUN steps in the graphs.
func commands(graphs []*llb.Graph) int {
	found := map[digest.Digest]bool{}
	for _, g := range graphs {
		for _, v := range g.Vertices {
			if v.Exec != nil {
				found[v.Digest] = true
			}
		}
	}
	return len(found)
}

// distinct returns list without the platforms that were requested twice, and warns about
// these.
func (b *build) distinct(list []frontend.Platform) (out []frontend.Platform) {
	for _, p := range list {
		if slices.ContainsFunc(out, func(q frontend.Platform) bool { return q.ID == p.ID }) {
			b.deps.Progress.Warning(progress.Warning{Short: fmt.Sprintf("Duplicate platform result requested %q", p.ID)})
			continue
		}
		out = append(out, p)
	}
	return out
}

func (b *build) solvePlatform(ctx context.Context, p frontend.Platform) (export.Platform, string, error) {
	out := export.Platform{ID: p.ID, Platform: p.Platform, Config: p.Config, BaseConfig: p.BaseConfig, Epoch: p.Epoch, Steps: stepNames(p.Graph)}
	snap, err := b.solver.Solve(ctx, p.Graph)
	if err == nil {
		snap, err = b.executor.base(ctx, snap)
	}
	if err != nil {
		return out, "", err
	}
	out.Layers, err = b.chain(snap.Layer)
	return out, snap.Layer, err
}

// evaluator gives the front end access to the files of a context that must be unpacked or
// fetched before it can be read.
type evaluator struct{ b *build }

func (e evaluator) Evaluate(ctx context.Context, g *llb.Graph) (frontend.Root, error) {
	if err := e.b.steps.Check(g); err != nil {
		return nil, err
	}
	snap, err := e.b.solver.Solve(ctx, g)
	if err != nil {
		return nil, err
	}
	if snap.Tree != nil {
		return frontend.OpenDir(snap.Dir, nil)
	}
	dir, err := e.b.mounts.View(snap.Layer)
	if err != nil {
		return nil, err
	}
	return frontend.OpenDir(dir, nil)
}

// close closes all parts of the build, the last opened first. It removes the workspace
// only if all mounts in it could be unmounted.
func (b *build) close() error {
	var errs []error
	for _, v := range slices.Backward(b.closers) {
		errs = append(errs, v())
	}
	if b.mounts != nil {
		if err := b.mounts.Close(); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	if b.work != nil {
		errs = append(errs, b.work.Remove())
	}
	return errors.Join(errs...)
}
