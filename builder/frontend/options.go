package frontend

import (
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options say what to build. The zero value of every field but Context means
// docker's default.
type Options struct {
	// Context is a directory, "-" (a tar archive or a Dockerfile on Stdin) or
	// an http(s) URL of either.
	Context string
	// Subdir is the directory of a context archive that is the context, ""
	// for all of it. The Dockerfile lies below it, too. It has no meaning for
	// other contexts.
	Subdir string
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
	// Resources bound RUN steps, where the machine can.
	Resources Resources
	// Ulimits are name=soft[:hard].
	Ulimits []string

	// NoCache runs every step again.
	NoCache bool
	// NoCacheFilter names the stages whose steps run again.
	NoCacheFilter []string
	// Pull asks the registry for a newer base image even when a local one
	// has the name.
	Pull bool
	// Epoch is SOURCE_DATE_EPOCH of the environment, nil for none. A build
	// argument of that name wins.
	Epoch *time.Time

	// SourcePolicy is a file of rules about what the build may use, "" for
	// none (see package policy).
	SourcePolicy string

	// IgnoreRego says nothing of a Rego policy beside the Dockerfile, which is
	// not evaluated in any case.
	IgnoreRego bool

	// Call asks for a report about the Dockerfile instead of a build:
	// CallCheck, CallOutline or any other that the front end has; "" builds.
	Call string

	// BuildPlatform is the machine that runs the steps, nil for this one.
	BuildPlatform *ocispec.Platform
	// TempDir is where a context read from Stdin is spooled, "" for the
	// system's.
	TempDir string
}

// Reports for Options.Call that are printed in a form of their own.
const (
	CallCheck    = "check"
	CallOutline  = "outline"
	CallTargets  = "targets"
	CallDescribe = "subrequests.describe"
)

// StdinURL is the made-up address of a context archive that was read from
// standard input. The http source serves Inputs.Archive under it. The top-level
// domain is reserved (RFC 2606), so no server can have the name.
const StdinURL = "http://stdin.invalid/context"

// Resources are limits of control groups; zero values bound nothing.
type Resources struct {
	// Memory in bytes, MemorySwap of memory and swap together, -1 for any
	// amount of swap.
	Memory, MemorySwap int64
	// CPUShares is a weight; CPUQuota, in each CPUPeriod, a time in
	// microseconds.
	CPUShares, CPUPeriod, CPUQuota int64
	// CpusetCpus and CpusetMems are lists such as 0-3,7.
	CpusetCpus, CpusetMems string
	// CgroupParent is the control group that steps are placed in.
	CgroupParent string
}
