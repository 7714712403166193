package frontend

import (
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options say what to build. The zero value of each field but Context selects docker's
// default.
type Options struct {
	// Context is a directory, a git repository, an http(s) URL, or "-" for Stdin. A URL
	// and Stdin may hold a tar archive or a Dockerfile.
	Context string
	// Subdir is the directory in a context archive that is used as the context, "" for
	// the whole archive. The Dockerfile must be below it too. It has no effect on a local
	// directory.
	Subdir string
	// Dockerfile is a path, an http(s) URL, or "-" for Stdin. "" selects the default
	// names in the context, see defaultNames.
	Dockerfile string
	// Stdin is read if Context or Dockerfile is "-".
	Stdin io.Reader

	// BuildArgs are the values of --build-arg.
	BuildArgs map[string]string
	// Contexts are the values of --build-context by name. A value is a directory,
	// docker-image://REF, oci-layout://PATH, a git repository or an http(s) URL.
	Contexts map[string]string
	// Target is the stage to build, "" for the last stage.
	Target string
	// Labels are added to the config of the image.
	Labels map[string]string
	// AddHosts are additional lines of /etc/hosts, each NAME:IP or NAME=IP.
	AddHosts []string
	// Network is the network of RUN steps: "default", "none", "host" or "private".
	Network string
	// Platforms are the platforms to build for. If there are none, it is the platform of
	// this machine.
	Platforms []ocispec.Platform
	// ShmSize is the size of /dev/shm in bytes, 0 for the default.
	ShmSize int64
	// Resources limit RUN steps, if the machine supports that.
	Resources Resources
	// Ulimits have the form name=soft[:hard].
	Ulimits []string

	// NoCache runs every step again.
	NoCache bool
	// NoCacheFilter names the stages whose steps run again.
	NoCacheFilter []string
	// Pull asks the registry for a newer base image, even if a local image has the name.
	Pull bool
	// Epoch is SOURCE_DATE_EPOCH from the environment, nil if it is not set. A build
	// argument of that name overrides it.
	Epoch *time.Time

	// SourcePolicy is a file with rules about the sources that the build may use, "" if
	// there is none (see package policy).
	SourcePolicy string

	// IgnoreRego turns off the warning about a Rego policy beside the Dockerfile. Such a
	// policy is never evaluated.
	IgnoreRego bool

	// Call requests a report about the Dockerfile instead of a build. It is CallCheck,
	// CallOutline or any other report of the front end; "" requests a build.
	Call string

	// BuildPlatform is the platform of the machine that runs the steps, nil for this
	// machine.
	BuildPlatform *ocispec.Platform
	// TempDir is the directory for a context that is spooled from Stdin, "" for the
	// system's default.
	TempDir string
}

// Reports for Options.Call that have a text form of their own.
const (
	CallCheck    = "check"
	CallOutline  = "outline"
	CallTargets  = "targets"
	CallDescribe = "subrequests.describe"
)

// StdinURL is an artificial address for a context archive from standard input. The http
// source serves Inputs.Archive at this address. The top-level domain "invalid" is
// reserved (RFC 2606), so no server can have that name.
const StdinURL = "http://stdin.invalid/context"

// Resources are limits of control groups. A zero value sets no limit.
type Resources struct {
	// Memory is in bytes. MemorySwap is the sum of memory and swap in bytes, -1 for
	// unlimited swap.
	Memory, MemorySwap int64
	// CPUShares is a relative weight. CPUQuota is the time that a step may use in each
	// CPUPeriod, both in microseconds.
	CPUShares, CPUPeriod, CPUQuota int64
	// CpusetCpus and CpusetMems are lists, for example 0-3,7.
	CpusetCpus, CpusetMems string
	// CgroupParent is the control group under which steps are placed.
	CgroupParent string
}
