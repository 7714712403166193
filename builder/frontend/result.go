package frontend

import (
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/progress"
)

// Result is the result of the front end for a Dockerfile.
type Result struct {
	// Platforms are in the order in which they were requested.
	Platforms []Platform
	// MultiPlatform is true if an index must be written, even for a single platform.
	MultiPlatform bool
	// Epoch is SOURCE_DATE_EPOCH after the Dockerfile was evaluated, nil if there is
	// none.
	Epoch *time.Time
	// Metadata holds the metadata of the front end by key, not decoded.
	Metadata map[string][]byte
	// Warnings are the lint findings. They were already sent to Services.Progress.
	Warnings []progress.Warning
	// UnusedArgs are the build arguments that no ARG instruction declares.
	UnusedArgs []UnusedArg
	// Call is the report that Options.Call requested. If it is set, Platforms is empty.
	Call *Call
}

// Platform is the build for one platform.
type Platform struct {
	// ID is the platform as a string, for example "linux/arm64".
	ID       string
	Platform ocispec.Platform
	Graph    *llb.Graph
	// Config is the image config as JSON. Its diff_ids are those of the base image and
	// its history has no times. The exporter must complete both.
	Config []byte
	// BaseConfig is the config of the base image, nil for scratch.
	BaseConfig []byte
	// Epoch is SOURCE_DATE_EPOCH for this platform, nil if there is none.
	Epoch *time.Time
}
