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

// Options says what to build and what to do with the result. The zero value
// of every field but Context means docker's default.
type Options struct {
	// Options are those that the front end knows too. TempDir is not the
	// caller's to set.
	frontend.Options

	// Tags are the names of the result.
	Tags []string
	// Format is "oci" (default) or "docker": the media types of the image
	// kept in the store.
	Format string
	// Allow are the entitlements that steps are granted, see
	// exec.ParseAllow. Network host grants its own.
	Allow []string
	// Secrets are what RUN --mount=type=secret and sources may ask for, SSH
	// the agents of RUN --mount=type=ssh and of git.
	Secrets []secrets.Source
	SSH     []sshagent.Source
	// Squash joins the layers that the build adds to the base into one.
	Squash bool
	// Exports are the -o values; none keeps the image in the store.
	Exports []Export
	// GC bounds the build cache; nil lets it grow.
	GC *gc.Limits
	// CacheFrom are caches to find results in, CacheTo where to write them.
	CacheFrom []CacheImport
	CacheTo   []CacheExport
	// CacheGrace is how long the caches may still be written after the context
	// ended with exec.ErrTerminated as its cause, counted from then; 0 for not at
	// all. After any other cause they are not.
	CacheGrace time.Duration
}

// DefaultCacheGrace is the usual Options.CacheGrace: kubernetes kills a container 30
// seconds after SIGTERM, and the build has to end in order afterwards.
const DefaultCacheGrace = 20 * time.Second

// Export is one -o value.
type Export struct {
	// Type is local, tar, oci, docker, image or registry.
	Type string
	// Dest is a path, or "-" for Stdout of Deps; "" where the type needs none.
	Dest string
	// Attrs are the remaining key=value pairs.
	Attrs map[string]string
}

// Deps are the services a build uses.
type Deps struct {
	Store    *storage.Store
	Registry *registry.Client
	// Runner runs the containers of RUN steps, Network connects them.
	Runner  exec.Runner
	Network exec.Network
	// NoMounts tells that nothing is mounted: layers are made in ordinary
	// directories. Place, when set, is where steps run, and Own keeps the
	// files there that belong to the container around until release is called.
	NoMounts bool
	Place    rootfs.Place
	Own      func() (release func(), err error)
	// SingleID tells that the user namespace has one id only.
	SingleID bool
	// Owners records owners where there is one id only; nil elsewhere.
	// Ownership says how much of it steps see.
	Owners    *recorded.Owners
	Ownership recorded.Tier
	Progress  progress.Sink
	Logger    *slog.Logger
	// Stdout receives an export whose Dest is "-".
	Stdout io.Writer
}

// Result describes a finished build.
type Result struct {
	// ImageID is sha256:<hex> of the config, "" when no image was exported.
	ImageID string
	// Metadata is what --metadata-file writes, with buildx's keys.
	Metadata map[string]any
	// Warnings counts the lint findings.
	Warnings int
	// UnusedArgs are the build arguments that no ARG declares.
	UnusedArgs []frontend.UnusedArg
	// Call is the report that Options.Call asked for; nothing was built then.
	Call *frontend.Call
}
