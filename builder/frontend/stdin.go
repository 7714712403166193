package frontend

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/moby/buildkit/util/archiveutil"
)

// headerSize is the number of bytes that the front end checks to distinguish an archive
// from a Dockerfile.
const headerSize = 1024

// openStdin reads standard input. An archive becomes the context. Any other content is a
// Dockerfile with an empty context.
func (in *Inputs) openStdin(ctx context.Context, o Options) error {
	if o.Stdin == nil {
		return inputErrorf("the context is to be read from standard input, but there is none")
	}
	if o.Dockerfile == "-" {
		return inputErrorf("the context and the Dockerfile cannot both be read from standard input")
	}
	stdin := bufio.NewReaderSize(o.Stdin, headerSize)
	header, err := stdin.Peek(headerSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return inputErrorf("read standard input: %w", err)
	}
	if len(header) == 0 {
		return inputErrorf("standard input is empty: neither a context archive nor a Dockerfile")
	}
	if in.tmp, err = os.MkdirTemp(o.TempDir, "shale-context-"); err != nil {
		return fmt.Errorf("make directory for the context: %w", err)
	}
	if archiveutil.IsArchive(header) {
		return in.spool(ctx, stdin, o)
	}
	if urlPrefix.MatchString(o.Dockerfile) {
		return inputErrorf("standard input holds a Dockerfile, and another is named by -f %s", o.Dockerfile)
	}
	if o.Dockerfile != "" {
		return inputErrorf("standard input holds no archive, and a Dockerfile there contradicts -f %s", o.Dockerfile)
	}
	return in.openEmpty(stdin)
}

func (in *Inputs) openEmpty(dockerfile io.Reader) error {
	dir := filepath.Join(in.tmp, "empty")
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // an empty directory has no secrets
		return fmt.Errorf("make empty context: %w", err)
	}
	in.Locals[localContext] = dir
	return in.readStdinDockerfile(dockerfile)
}

// spool writes the archive to a file that the http source serves. If -f is an absolute
// path, it names a file on this machine; a relative path names a file in the archive.
func (in *Inputs) spool(ctx context.Context, stdin io.Reader, o Options) error {
	path := filepath.Join(in.tmp, "context")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("spool context: %w", err)
	}
	_, err = io.Copy(f, &ctxReader{ctx: ctx, r: stdin})
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("spool context: %w", err)
	}
	in.Archive = path
	o.Context = StdinURL
	return in.openURL(ctx, o)
}

// ctxReader returns an error at the first Read after its context has ended.
type ctxReader struct {
	ctx context.Context //nolint:containedctx // it lives for one copy
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
