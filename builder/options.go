package builder

import (
	"io"
	"log/slog"
	"time"

	"github.com/shale-build/shale/builder/exec"
	"github.com/shale-build/shale/builder/frontend"
	"github.com/shale-build/shale/builder/gc"
	"github.com/shale-build/shale/builder/progress"
	"github.com/shale-build/shale/builder/rootfs"
	"github.com/shale-build/shale/builder/secrets"
	"github.com/shale-build/shale/builder/sshagent"
	"github.com/shale-build/shale/runtime/recorded"
	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/registry"
)

// Options says what to build and how to use the result. The zero value of each field but
// Context selects docker's default.
type Options struct {
	// Options are the options of the front end. The caller must not set TempDir.
	frontend.Options

	// Tags are the names of the result.
	Tags []string
	// Format selects the media types of the image in the store: "oci" (the default) or
	// "docker".
	Format string
	// Allow are the entitlements of the steps, see exec.ParseAllow. If Network is "host",
	// network.host is granted as well.
	Allow []string
	// Secrets are available to RUN --mount=type=secret and to sources. SSH are the agents
	// for RUN --mount=type=ssh and for git.
	Secrets []secrets.Source
	SSH     []sshagent.Source
	// Squash joins the layers that the build adds to the base into one layer.
	Squash bool
	// Exports are the values of -o. If there are none, the image is kept in the store.
	Exports []Export
	// GC limits the size of the build cache. If it is nil, the cache grows without limit.
	GC *gc.Limits
	// CacheFrom are caches to import results from, and CacheTo caches to export results
	// to.
	CacheFrom []CacheImport
	CacheTo   []CacheExport
	// CacheGrace is how long caches may still be exported after the context has ended
	// with exec.ErrTerminated as its cause. 0 means that they are not. If the context
	// ends with any other cause, they are not exported either.
	CacheGrace time.Duration
}

// DefaultCacheGrace is the usual value of Options.CacheGrace. Kubernetes kills a
// container 30 seconds after SIGTERM, and the build needs the rest of that time to end in
// order.
const DefaultCacheGrace = 20 * time.Second

// Export is one value of -o.
type Export struct {
	// Type is local, tar, oci, docker, image or registry.
	Type string
	// Dest is a path, or "-" for Deps.Stdout. It is "" if the type needs no destination.
	Dest string
	// Attrs are the remaining key=value pairs.
	Attrs map[string]string
}

// Deps are the services that a build uses.
type Deps struct {
	Store    *storage.Store
	Registry *registry.Client
	// Runner runs the containers of RUN steps, and Network connects them.
	Runner  exec.Runner
	Network exec.Network
	// NoMounts makes the build work without mounts: layers are made in ordinary
	// directories. If Place is set, steps run in that directory. Own puts the container's
	// own files in place there and keeps them there until release is called.
	NoMounts bool
	Place    rootfs.Place
	Own      func() (release func(), err error)
	// SingleID is true if only one id is mapped in the user namespace.
	SingleID bool
	// Owners records the owners of files if only one id is mapped in the user namespace,
	// and is nil otherwise. Ownership says how much of the recorded owners the steps see.
	Owners    *recorded.Owners
	Ownership recorded.Tier
	Progress  progress.Sink
	Logger    *slog.Logger
	// Stdout receives each export whose Dest is "-".
	Stdout io.Writer
}

// Result describes a finished build.
type Result struct {
	// ImageID is sha256:<hex> of the config, or of the index if there is one. It is "" if
	// no image was exported.
	ImageID string
	// Metadata is the content of the file of --metadata-file. Its keys are those of
	// buildx.
	Metadata map[string]any
	// Warnings is the number of lint findings.
	Warnings int
	// UnusedArgs are the build arguments that no ARG instruction declares.
	UnusedArgs []frontend.UnusedArg
	// Call is the report that Options.Call requested. If it is set, nothing was built.
	Call *frontend.Call
}
