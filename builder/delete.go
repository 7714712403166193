package builder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shale-build/shale/builder/exec"
)

// checkDelete returns an error if an output would delete files outside the working
// directory and allowed is false.
func checkDelete(outs []output, allowed bool) error {
	for _, o := range outs {
		if o.Type != "local" || !o.files.Delete || allowed {
			continue
		}
		below, err := belowWorkDir(o.Dest)
		if err != nil {
			return fmt.Errorf("find output directory %s: %w", o.Dest, err)
		}
		if !below {
			return fmt.Errorf("local output mode=delete for destination %q requires --allow=%s", o.Dest, exec.LocalDelete)
		}
	}
	return nil
}

// belowWorkDir reports whether path is below the working directory and is not the working
// directory itself. It follows symbolic links.
func belowWorkDir(path string) (bool, error) {
	wd, err := os.Getwd()
	if err != nil {
		return false, err
	}
	if wd, err = followed(wd); err != nil {
		return false, err
	}
	if path, err = followed(path); err != nil {
		return false, err
	}
	rel, err := filepath.Rel(wd, path)
	return err == nil && rel != "." && filepath.IsLocal(rel), nil
}

// followed returns path as an absolute path, and resolves the symbolic links in the part
// of it that exists.
func followed(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for dir, rest := path, ""; ; dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest) {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return "", err
		}
	}
}
