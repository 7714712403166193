package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"strconv"

	"github.com/moby/buildkit/client"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/cmd/shale/cli/display"
	"github.com/shale-build/shale/internal/umask"
)

// resultFiles describes the destinations of a build's results, apart from the image.
type resultFiles struct {
	iidFile, metadataFile string
	quiet                 bool
	progress              string
	// stdoutTaken is set if an export writes to standard output.
	stdoutTaken bool
	// call is the report that is made instead of a build.
	call callOptions
	// warnings are the lint findings. They are written to the metadata file if
	// BUILDX_METADATA_WARNINGS requests them.
	warnings []client.VertexWarning
}

// Names that docker buildx defines: the environment variable that requests lint
// findings in the metadata file, and the key of these findings in the file.
const (
	metadataWarningsEnv = "BUILDX_METADATA_WARNINGS"
	metadataWarnings    = "buildx.build.warnings"
)

func resultOptions(c *cli.Context) (resultFiles, error) {
	r := resultFiles{
		iidFile: c.String("iidfile"), metadataFile: c.String("metadata-file"),
		quiet: c.Bool("quiet"), progress: c.String("progress"),
	}
	if r.quiet {
		r.progress = "quiet"
	}
	mode, err := display.ParseMode(r.progress)
	// "none" and "quiet" show no progress, and "quiet" also prints the image ID at the
	// end.
	r.progress, r.quiet = mode, r.quiet || r.progress == "quiet"
	var callErr error
	r.call, callErr = callValue(c)
	return r, errors.Join(err, callErr)
}

// clear removes the result files of an earlier build. If this build fails, they must
// not be taken for its results.
func (r resultFiles) clear() error {
	for _, path := range []string{r.iidFile, r.metadataFile} {
		info, err := os.Lstat(path)
		if path == "" || err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the result of an earlier build: %w", err)
		}
	}
	return nil
}

// write writes the files. In quiet mode, it also prints the image ID to stdout, unless
// an export uses stdout.
func (r resultFiles) write(stdout io.Writer, res *builder.Result) error {
	if r.iidFile != "" && res.ImageID != "" {
		if err := writeResult(r.iidFile, []byte(res.ImageID)); err != nil {
			return fmt.Errorf("write --iidfile: %w", err)
		}
	}
	if r.metadataFile != "" {
		metadata := r.metadata(res)
		data, err := json.MarshalIndent(metadata, "", "  ")
		if err != nil {
			return fmt.Errorf("encode metadata: %w", err)
		}
		if err := writeResult(r.metadataFile, data); err != nil {
			return fmt.Errorf("write --metadata-file: %w", err)
		}
	}
	if r.quiet && !r.stdoutTaken && res.ImageID != "" {
		if _, err := fmt.Fprintln(stdout, res.ImageID); err != nil {
			return fmt.Errorf("write image ID: %w", err)
		}
	}
	return nil
}

// metadata returns the content of the --metadata-file.
func (r resultFiles) metadata(res *builder.Result) map[string]any {
	metadata := maps.Clone(res.Metadata)
	if metadata == nil {
		metadata = map[string]any{}
	}
	wanted, err := strconv.ParseBool(os.Getenv(metadataWarningsEnv))
	if err == nil && wanted && len(r.warnings) > 0 && res.Call == nil {
		metadata[metadataWarnings] = r.warnings
	}
	return metadata
}

// writeResult writes data to a file. If the file is new, its mode depends on the umask
// of the user.
func writeResult(path string, data []byte) error {
	f, isNew, err := openResult(path)
	if err != nil {
		return err
	}
	if !isNew {
		err = f.Truncate(0)
		if errors.Is(err, unix.EINVAL) {
			err = nil // a pipe or a device has no size
		}
	}
	if err == nil {
		_, err = f.Write(data)
	}
	return errors.Join(err, f.Close())
}

// openResult opens a file for writing and reports whether it created the file.
func openResult(path string) (f *os.File, isNew bool, err error) {
	perm := umask.Of(0o666)
	f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	switch {
	case err == nil:
		if err := f.Chmod(perm); err != nil {
			return nil, false, errors.Join(err, f.Close(), os.Remove(path))
		}
		return f, true, nil
	case !errors.Is(err, fs.ErrExist):
		return nil, false, err
	}
	// O_CREATE is needed for a symbolic link to a file that does not exist.
	f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, perm)
	return f, false, err
}

// prepareResult returns an error if writeResult cannot write path. It must be called
// before the result is made. undo removes a file that prepareResult created. If path is
// not a regular file, for example a pipe, prepareResult does not open it, because that
// may block until there is a reader.
func prepareResult(path string) (undo func(), err error) {
	undo = func() {}
	if info, err := os.Stat(path); path == "" || err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return undo, nil
	}
	f, isNew, err := openResult(path)
	if err != nil {
		return undo, err
	}
	if isNew {
		undo = func() { _ = os.Remove(path) }
	}
	return undo, f.Close()
}
