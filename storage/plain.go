package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

// plainRun is the run root of a store that is opened without mounting: what the
// driver keeps there about the kernel's overlays is not so for others.
const plainRun = "shale-plain"

// assumed is what the driver otherwise finds out by test mounts, and how it
// remembers each (go.podman.io/storage v1.64.2, drivers/overlay,
// cachedFeatureCheck): overlays can be used, with native diffs and none of the
// features by which an upper directory would refer to a lower one.
var assumed = []string{"overlay-true", "metacopy()-false", "native-diff()-true", "volatile-true", "idmapped-lower-dir-false", "dataonly-layers-false"}

// withoutMounts has the driver mount nothing when it starts. Layers are those
// of any other store, for podman and overlays too, unless the graph root lies
// on an overlay: there nobody can mark deleted names by device nodes, and the
// library has another form for them (.wh.NAME) which it uses together with a
// mount program. None is ever called: who opens a store so mounts nothing.
func withoutMounts(so *types.StoreOptions) error {
	so.RunRoot = filepath.Join(so.RunRoot, plainRun)
	so.GraphDriverOptions = append(so.GraphDriverOptions, "overlay.skip_mount_home=true")
	onOverlay, err := isOverlay(so.GraphRoot)
	if err != nil {
		return err
	}
	if onOverlay {
		so.GraphDriverOptions = append(so.GraphDriverOptions, "overlay.mount_program=/proc/self/exe")
		return nil
	}
	home := filepath.Join(so.RunRoot, driverName)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return fmt.Errorf("create run root: %w", err)
	}
	for _, name := range assumed {
		if err := os.WriteFile(filepath.Join(home, name), nil, 0o600); err != nil {
			return fmt.Errorf("create run root: %w", err)
		}
	}
	return nil
}

// OnOverlay tells whether the store that opts choose lies on an overlay, as
// one in the root file system of a container does: no overlay can be laid over
// it, and it has to be opened with NoMounts.
func OnOverlay(opts Options) (bool, error) {
	so, err := storeOptions(opts)
	if err != nil {
		return false, fmt.Errorf("read storage.conf: %w", err)
	}
	return isOverlay(so.GraphRoot)
}

// isOverlay tells whether the nearest existing directory of path is on an
// overlay.
func isOverlay(path string) (bool, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if err == nil {
			return st.Type == unix.OVERLAYFS_SUPER_MAGIC, nil
		}
		if up := filepath.Dir(path); !errors.Is(err, unix.ENOENT) || up == path {
			return false, &os.PathError{Op: "statfs", Path: path, Err: err}
		}
		path = filepath.Dir(path)
	}
}
