package export

import (
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
)

// Build is what a build made, before any output has decided on its form.
type Build struct {
	// Platforms are in the order they were asked for.
	Platforms []Platform
	// Multi asks for an index, be it of one platform.
	Multi bool
}

// Platform is the result for one platform.
type Platform struct {
	// ID is the platform in one string, "linux/arm64".
	ID       string
	Platform ocispec.Platform
	// Config is the front end's: its diffIDs are those of the base and its
	// history has no times. BaseConfig is of the base image, nil for scratch.
	Config, BaseConfig []byte
	// Layers are base first. Steps are the names of the steps that made the
	// topmost of them, last first.
	Layers []storage.Layer
	Steps  []string
	// Epoch is SOURCE_DATE_EPOCH, nil for none.
	Epoch *time.Time
}

// find returns the platform with that normalized ID.
func (b Build) find(id string) bool {
	for _, p := range b.Platforms {
		if p.ID == id || platforms.FormatAll(p.Platform) == id {
			return true
		}
	}
	return false
}

// Epoch is a SOURCE_DATE_EPOCH given to one output. An output without one uses
// that of the build; one whose Time is nil has none.
type Epoch struct{ Time *time.Time }

// of is the epoch that counts for a platform.
func (e *Epoch) of(p Platform) *time.Time {
	if e != nil {
		return e.Time
	}
	return p.Epoch
}
