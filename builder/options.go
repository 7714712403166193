package builder

import (
	"io"
	"log/slog"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/exec"
	"github.com/shale-build/shale/builder/progress"
	"github.com/shale-build/shale/runtime/sandbox"
	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/registry"
)

// Options says what to build and what to do with the result. The zero value
// of every field but Context means docker's default.
type Options struct {
	// Context is a directory, "-" (a tar archive or a Dockerfile on Stdin) or
	// an http(s) URL of either.
	Context string
	// Dockerfile is a path, "-" for Stdin, or "" for <context>/Dockerfile.
	Dockerfile string
	// Stdin is read when Context or Dockerfile is "-".
	Stdin io.Reader

	// BuildArgs are --build-arg values.
	BuildArgs map[string]string
	// Contexts are --build-context values by name: a directory,
	// docker-image://REF, oci-layout://PATH or an http(s) URL.
	Contexts map[string]string
	// Target is the stage to build, "" for the last.
	Target string
	// Labels are added to the image's config.
	Labels map[string]string
	// AddHosts are extra lines of /etc/hosts, each NAME:IP or NAME=IP.
	AddHosts []string
	// Network is the network of RUN steps: "default", "none", "host" or
	// "private".
	Network string
	// Platforms are the platforms to build for; none means the machine's own.
	Platforms []ocispec.Platform
	// ShmSize is the size of /dev/shm in bytes, 0 for the default.
	ShmSize int64
	// Ulimits are name=soft[:hard].
	Ulimits []string

	// NoCache runs every step again.
	NoCache bool
	// NoCacheFilter names the stages whose steps run again.
	NoCacheFilter []string
	// Pull asks the registry for a newer base image even when a local one
	// has the name.
	Pull bool

	// Tags are the names of the result.
	Tags []string
	// Format is "oci" (default) or "docker": the media types of the image
	// kept in the store.
	Format string
	// Exports are the -o values; none keeps the image in the store.
	Exports []Export
	// Epoch is SOURCE_DATE_EPOCH of the environment, nil for none. A build
	// argument of that name wins.
	Epoch *time.Time
}

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
	Runner  *sandbox.Runner
	Network exec.Network
	// SingleID tells that the user namespace has one id only.
	SingleID bool
	Progress progress.Sink
	Logger   *slog.Logger
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
}
