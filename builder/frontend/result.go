package frontend

import (
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/progress"
)

// Result is what the front end made of a Dockerfile.
type Result struct {
	// Platforms are in the order they were asked for.
	Platforms []Platform
	// MultiPlatform is set when an index is wanted, be it of one platform.
	MultiPlatform bool
	// Epoch is SOURCE_DATE_EPOCH as the Dockerfile resolved it, nil for
	// none.
	Epoch *time.Time
	// Metadata holds the front end's remarks by key, undecoded.
	Metadata map[string][]byte
	// Warnings are the lint findings, already sent to Services.Progress.
	Warnings []progress.Warning
	// UnusedArgs are the build arguments that no ARG declares.
	UnusedArgs []UnusedArg
	// Call is the report Options.Call asked for; Platforms is empty then.
	Call *Call
}

// Platform is the build for one platform.
type Platform struct {
	// ID is the platform in one string, "linux/arm64".
	ID       string
	Platform ocispec.Platform
	Graph    *llb.Graph
	// Config is the image config as JSON. Its diff_ids are those of the base
	// image and its history has no times: the exporter completes both.
	Config []byte
	// BaseConfig is the config of the base image, nil for scratch.
	BaseConfig []byte
	// Epoch is SOURCE_DATE_EPOCH for this platform, nil for none.
	Epoch *time.Time
}
