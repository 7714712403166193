package export

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/tonistiigi/fsutil"
	fscopy "github.com/tonistiigi/fsutil/copy"
)

// Files copies the file system at root into dir, which is made if it does not
// exist and added to if it does. Everything will belong to the caller, as with
// docker: another owner could not be given without privileges.
func Files(ctx context.Context, root, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the user's own output
		return fmt.Errorf("make output directory: %w", err)
	}
	owner := func(*fscopy.User) (*fscopy.User, error) { return &fscopy.User{}, nil }
	err := fscopy.Copy(ctx, root, "/", dir, "/", func(ci *fscopy.CopyInfo) {
		ci.CopyDirContents = true
		ci.AlwaysReplaceExistingDestPaths = true
		ci.Chown = owner
	})
	if err != nil {
		return fmt.Errorf("write files to %s: %w", dir, err)
	}
	return nil
}

// Tar writes the file system at root as one tar file, with its owners.
func Tar(ctx context.Context, root string, w io.Writer) error {
	fs, err := fsutil.NewFS(root)
	if err != nil {
		return fmt.Errorf("read the result: %w", err)
	}
	if err := fsutil.WriteTar(ctx, fs, w); err != nil {
		return fmt.Errorf("write tar: %w", err)
	}
	return nil
}
