package builder

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/exec"
	"github.com/shale-build/shale/builder/export"
	"github.com/shale-build/shale/builder/llb"
)

// lasting returns a context that ends when ctx ends. If the cause of ctx is
// exec.ErrTerminated, it ends only after a further time of grace, so that the build can
// end in order. release ends the context at once.
func lasting(ctx context.Context, grace time.Duration) (_ context.Context, release func()) {
	long, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		cause := context.Cause(ctx)
		if errors.Is(cause, exec.ErrTerminated) {
			select {
			case <-long.Done():
			case <-time.After(grace):
			}
		}
		cancel(cause)
	})
	return long, func() {
		stop()
		cancel(nil)
	}
}

// ExportTime returns how long a build with these options may continue after it was asked
// to end in order. It is 0 if the build has no cache to export.
func (o Options) ExportTime() time.Duration {
	if !slices.ContainsFunc(o.CacheTo, func(e CacheExport) bool { return e.Type != "inline" }) {
		return 0
	}
	return o.CacheGrace
}

func (b *build) exportTime() time.Duration { return b.opts.ExportTime() }

// exportIncomplete exports the complete steps of a build that failed or was asked to end.
// Such a build already returns its own error, so an error of the export is only logged.
func (b *build) exportIncomplete(f finished, layers *export.Layers) {
	targets := slices.DeleteFunc(slices.Clone(b.cacheTargets), func(t cacheTarget) bool { return t.onSuccess })
	if len(targets) == 0 || len(f.graphs) == 0 || b.whole.Err() != nil || b.mounts.Removed() != nil {
		return
	}
	release, err := b.own()
	if err != nil {
		b.deps.Logger.Warn("no cache is exported", "error", err)
		return
	}
	defer release()
	for _, t := range targets {
		x := &cacheExport{build: b, target: t, finished: f}
		if !x.anything(b.whole) {
			continue
		}
		if b.caller.Err() != nil {
			b.deps.Logger.Warn("the build is stopped; complete steps are exported to the cache, another signal ends the export", "to", t.where, "within", b.exportTime())
		}
		if err := b.exportCache(t, f, layers); err != nil {
			b.deps.Logger.Warn("the cache was not exported", "to", t.where, "error", err)
		}
	}
}

// anything reports whether the build made layers or used cache mounts that the target
// would receive.
func (x *cacheExport) anything(ctx context.Context) bool {
	if len(x.cacheTops(ctx, x.target, x.finished)) > 0 {
		return true
	}
	if x.target.mounts.none() {
		return false
	}
	list, err := x.caches.Find(x.target.mounts.includes)
	if err != nil {
		return true // the export returns the same error
	}
	for _, m := range list {
		if x.caches.Used(m.Key) {
			return true
		}
	}
	return false
}

// below returns the index of the input that v makes its layer on, or -1 if there is none.
func below(v *llb.Vertex) int {
	switch {
	case v.Exec != nil:
		for _, m := range v.Exec.GetMounts() {
			if m.GetDest() == pb.RootMount {
				return int(m.GetInput())
			}
		}
	case v.File != nil:
		return baseInput(v.File, len(v.Inputs))
	case v.Merge != nil && len(v.Merge.GetInputs()) > 0:
		return int(v.Merge.GetInputs()[0].GetInput())
	}
	return -1
}
