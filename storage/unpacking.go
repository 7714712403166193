package storage

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/unshare"
)

// unpacking has the options with which the driver would unpack a layer
// (go.podman.io/storage v1.64.2, drivers/overlay, ApplyDiffWithDiffer).
type unpacking struct {
	options archive.TarOptions
	// flat reports that the driver wants files under their digests, for composefs.
	flat bool
}

// rootMode returns the mode with which the directory of a layer is made.
func (u unpacking) rootMode() os.FileMode {
	if u.options.ForceMask != nil {
		return *u.options.ForceMask
	}
	return 0o555
}

// unpacking reads the options of the driver for unpacking layers. The driver has checked
// them at its start.
func (s *Store) unpacking() (u unpacking, err error) {
	u.options = archive.TarOptions{WhiteoutFormat: archive.OverlayWhiteoutFormat, InUserNS: unshare.IsRootless()}
	for _, option := range s.lib.GraphOptions() {
		key, value, _ := strings.Cut(option, "=")
		if driver, of, ok := strings.Cut(key, "."); ok && (driver == driverName || driver == "overlay2") {
			key = of
		}
		switch strings.ToLower(key) {
		case "ignore_chown_errors":
			u.options.IgnoreChownErrors, err = strconv.ParseBool(value)
		case "use_composefs":
			u.flat, err = strconv.ParseBool(value)
		case "force_mask":
			u.options.ForceMask, err = parseMask(value)
		case "mount_program":
			// An overlay marks deleted names by device nodes. If a program does the
			// mounts, device nodes may be forbidden, so deleted names are then marked by
			// files.
			u.options.WhiteoutFormat = archive.OverlayWhiteoutFormat // the last option counts
			if value != "" {
				u.options.WhiteoutFormat = archive.AUFSWhiteoutFormat
			}
		}
		if err != nil {
			return u, fmt.Errorf("read option %q of the storage driver: %w", option, err)
		}
	}
	return u, nil
}

func parseMask(value string) (*os.FileMode, error) {
	var mode os.FileMode
	switch value {
	case "shared":
		mode = 0o755
	case "private":
		mode = 0o700
	default:
		mask, err := strconv.ParseUint(value, 8, 32)
		if err != nil {
			return nil, err
		}
		mode = os.FileMode(mask)
	}
	return &mode, nil
}
