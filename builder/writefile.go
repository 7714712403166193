package builder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/shale-build/shale/internal/umask"
)

// writeFile replaces path atomically by the data that write produces. If path is "-" or
// "", the data goes to standard output. An existing path that is not a regular file is
// written directly.
func (b *build) writeFile(path string, write func(io.Writer) error) error {
	if path == "" || path == "-" {
		if b.deps.Stdout == nil {
			return errors.New("this output needs a file: give dest=")
		}
		return write(b.deps.Stdout)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return writeInto(path, info, write)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := write(tmp); err != nil {
		_ = tmp.Close()
		_ = os.Remove(tmp.Name())
		return err // write includes the path in its own error if it is at fault
	}
	// Use the mode that os.Create would give the file.
	err = errors.Join(tmp.Chmod(umask.Of(0o666)), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// writeInto writes to an existing path that is not a regular file, for example a pipe or
// /dev/null.
func writeInto(path string, info os.FileInfo, write func(io.Writer) error) error {
	if info.IsDir() {
		return fmt.Errorf("write %s: it is a directory; give dest= a file name", path)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return errors.Join(write(f), f.Close())
}
