package export

import (
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
)

// Build is the result of a build. Its outputs choose the form in which it is written.
type Build struct {
	// Platforms are in the requested order.
	Platforms []Platform
	// Multi asks for an index, even for a single platform.
	Multi bool
}

// Platform is the result for one platform.
type Platform struct {
	// ID is the platform as one string, for example "linux/arm64".
	ID       string
	Platform ocispec.Platform
	// Config is the config of the front end. Its diffIDs are those of the base image, and
	// its history has no times. BaseConfig is the config of the base image, or nil for
	// scratch.
	Config, BaseConfig []byte
	// Layers are ordered from the base to the top. Steps are the names of the steps that
	// made the topmost layers, the last step first.
	Layers []storage.Layer
	Steps  []string
	// Epoch is SOURCE_DATE_EPOCH, or nil if it is not set.
	Epoch *time.Time
}

// find reports whether b has the platform with that normalized ID.
func (b Build) find(id string) bool {
	for _, p := range b.Platforms {
		if p.ID == id || platforms.FormatAll(p.Platform) == id {
			return true
		}
	}
	return false
}

// Epoch is the SOURCE_DATE_EPOCH of one output. An output without an Epoch uses that of
// the build. If Time is nil, the output does not use any SOURCE_DATE_EPOCH.
type Epoch struct{ Time *time.Time }

// of returns the SOURCE_DATE_EPOCH that applies to a platform, or nil if there is none.
func (e *Epoch) of(p Platform) *time.Time {
	if e != nil {
		return e.Time
	}
	return p.Epoch
}
