package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.podman.io/storage/pkg/lockfile"
)

// The driver keeps a short name for every layer: a symbolic link overlay/l/NAME. The file
// "link" in the layer's directory contains NAME. The driver creates that file with a
// plain open and write. If a process is killed between the two, the file stays empty. The
// next process that removes the unfinished layer then uses the empty NAME as the name to
// remove, and so removes the directory overlay/l with the names of all layers
// (go.podman.io/storage v1.64.2, drivers/overlay, removeCommon). shale mounts layers by
// their directories, but other tools and older releases of the library need the names.

// linkNames is the driver's directory of short names.
const linkNames = "l"

// mend removes empty "link" files, which would mislead the library, and restores names
// that are gone. It must be called before the library opens the store. If no process was
// killed while it changed the store, mend only reads one directory.
func mend(graphRoot string) (err error) {
	if !abandoned(filepath.Join(graphRoot, stateDir, pendingDir)) {
		return nil
	}
	home := filepath.Join(graphRoot, driverName)
	if _, err := os.Lstat(filepath.Join(home, linkNames)); err != nil {
		// The directory of names may be gone too. If its parent does not exist either,
		// the store has no layers.
		if err := os.Mkdir(filepath.Join(home, linkNames), 0o755); errors.Is(err, os.ErrNotExist) { //nolint:gosec // as the driver makes it
			return nil
		}
	}
	// The library makes and removes layers under this lock, so no process does so now.
	lock, err := lockfile.GetLockFile(filepath.Join(graphRoot, driverName+"-layers", "layers.lock"))
	if err != nil {
		return fmt.Errorf("lock the layers: %w", err)
	}
	lock.Lock()
	defer lock.Unlock()
	return mendNames(home)
}

func mendNames(home string) error {
	entries, err := os.ReadDir(home)
	if err != nil {
		return fmt.Errorf("list layers: %w", err)
	}
	nameless := map[string]bool{}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || e.Name() == linkNames {
			continue
		}
		file := filepath.Join(home, e.Name(), "link")
		name, err := os.ReadFile(file)
		switch {
		case err == nil && len(name) == 0:
			nameless[e.Name()] = true
			errs = append(errs, os.Remove(file))
		case err == nil:
			errs = append(errs, restoreName(home, e.Name(), string(name)))
		case errors.Is(err, os.ErrNotExist):
			nameless[e.Name()] = true
		default:
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, dropNames(home, nameless))...)
}

// restoreName makes the short name of a layer again if it is gone.
func restoreName(home, layer, name string) error {
	if !filepath.IsLocal(name) || filepath.Base(name) != name {
		return nil // not written by the driver
	}
	err := os.Symlink(nameTarget(layer), filepath.Join(home, linkNames, name))
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

func nameTarget(layer string) string { return filepath.Join("..", layer, "diff") }

// dropNames removes the short names of layers that have no name in their "link" file.
// After these layers are gone, no other program would remove the names.
func dropNames(home string, layers map[string]bool) error {
	if len(layers) == 0 {
		return nil
	}
	dir := filepath.Join(home, linkNames)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list names of layers: %w", err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		target, err := os.Readlink(path)
		if err != nil {
			continue
		}
		if layer := filepath.Base(filepath.Dir(target)); layers[layer] && target == nameTarget(layer) {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}
