package cli

import (
	"fmt"
	"time"

	"github.com/docker/go-units"

	"github.com/shale-build/shale/storage"
)

// humanSize formats a number of bytes as docker does: with three digits and a decimal
// unit.
func humanSize(bytes int64) string {
	return units.HumanSizeWithPrecision(float64(max(0, bytes)), 3)
}

// ago returns the time since t in words. It returns "N/A" if t is zero.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return units.HumanDuration(now.Sub(t)) + " ago"
}

// layersSize returns the sum of the sizes of layers. A layer of unknown size counts as
// zero.
func layersSize(layers []storage.Layer) int64 {
	var sum int64
	for _, l := range layers {
		sum += max(0, l.Size)
	}
	return sum
}

// parseSize parses a size such as 10GB or 512m. Its units are powers of 1024, as in
// docker's memory and cache sizes.
func parseSize(flag, value string) (int64, error) {
	size, err := units.RAMInBytes(value)
	if err != nil || size < 0 {
		return 0, fmt.Errorf("invalid --%s %q: want a size such as 512MB or 10GB", flag, value)
	}
	return size, nil
}
