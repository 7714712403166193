package builder

import (
	"fmt"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// onePlatform returns the platform to build for.
func onePlatform(list []ocispec.Platform) (ocispec.Platform, error) {
	switch len(list) {
	case 0:
		return platforms.DefaultSpec(), nil
	case 1:
		return platforms.Normalize(list[0]), nil
	}
	return ocispec.Platform{}, fmt.Errorf("a build for %d platforms at once is not possible: build for one at a time", len(list))
}
