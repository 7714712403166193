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

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/cmd/shale/cli/display"
)

// resultFiles says where a build's outcome is written, apart from the image.
type resultFiles struct {
	iidFile, metadataFile string
	quiet                 bool
	progress              string
	// stdoutTaken is set when an export goes to standard output.
	stdoutTaken bool
	// call is the report that is made instead of a build.
	call callOptions
	// warnings are lint findings for the metadata file, if they are wanted
	// there.
	warnings []client.VertexWarning
}

// Names that docker buildx gave: of the environment variable that asks for lint
// findings in the metadata file, and of their key in it.
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
	// "none" shows nothing at all, "quiet" the image ID in the end.
	r.progress, r.quiet = mode, r.quiet || r.progress == "quiet"
	var callErr error
	r.call, callErr = callValue(c)
	return r, errors.Join(err, callErr)
}

// clear removes the files of an earlier build, so that none is mistaken for
// this one's should it fail.
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

// write writes the files, and in quiet mode the image ID to stdout, unless
// that was taken by an export.
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

// metadata is what --metadata-file holds.
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

// writeResult writes a file others may read, whatever the umask.
func writeResult(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // the user's own file, for everybody to read
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if info, statErr := f.Stat(); statErr == nil && info.Mode().IsRegular() {
		err = errors.Join(err, f.Chmod(0o644))
	}
	return errors.Join(err, f.Close())
}
