package frontend

import (
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options say what to build. The fields mean what those of builder.Options
// mean.
type Options struct {
	Context    string
	Dockerfile string
	Stdin      io.Reader

	BuildArgs map[string]string
	Contexts  map[string]string
	Target    string
	Labels    map[string]string
	AddHosts  []string
	Network   string
	Platforms []ocispec.Platform
	ShmSize   int64
	Ulimits   []string

	NoCache       bool
	NoCacheFilter []string
	Pull          bool
	Epoch         *time.Time

	// Call asks for a report about the Dockerfile instead of a build:
	// CallCheck, CallOutline or CallTargets; "" builds.
	Call string

	// BuildPlatform is the machine that runs the steps, nil for this one.
	BuildPlatform *ocispec.Platform
	// TempDir is where a context read from Stdin is spooled, "" for the
	// system's.
	TempDir string
}

// What Options.Call may be.
const (
	CallCheck   = "check"
	CallOutline = "outline"
	CallTargets = "targets"
)

// StdinURL is the made-up address of a context archive that was read from
// standard input. The http source serves Inputs.Archive under it. The top-level
// domain is reserved (RFC 2606), so no server can have the name.
const StdinURL = "http://stdin.invalid/context"
