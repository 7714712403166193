package blobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/umask"
)

// Name is where a blob lies in a layout.
func Name(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// Layout is a directory in OCI layout. A blob is written under another name and
// renamed when its digest is known.
type Layout struct{ root *os.Root }

var _ Sink = (*Layout)(nil)

// OpenLayout makes the directory where there is none.
func OpenLayout(dir string) (*Layout, error) {
	if err := umask.MkdirAll(umask.Host{}, dir, os.ModePerm); err != nil {
		return nil, fmt.Errorf("make layout directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open layout directory: %w", err)
	}
	return &Layout{root}, nil
}

// Close closes the directory.
func (l *Layout) Close() error { return l.root.Close() }

// Root is the directory.
func (l *Layout) Root() *os.Root { return l.root }

// Has implements Sink.
func (l *Layout) Has(_ context.Context, blob ocispec.Descriptor) (bool, error) {
	info, err := l.root.Lstat(Name(blob.Digest))
	return err == nil && info.Mode().IsRegular() && info.Size() == blob.Size, nil
}

// Put implements Sink.
func (l *Layout) Put(_ context.Context, blob ocispec.Descriptor, r io.Reader) (digest.Digest, int64, error) {
	dir := path.Join(ocispec.ImageBlobsDir, digest.Canonical.String())
	if err := umask.MkdirAll(l.root, dir, os.ModePerm); err != nil {
		return "", 0, fmt.Errorf("write to layout: %w", err)
	}
	tmp := path.Join(dir, rand.Text()+".tmp")
	f, err := l.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return "", 0, fmt.Errorf("write to layout: %w", err)
	}
	s := newSummed(f)
	err = s.copy(r)
	if err == nil && blob.Digest != "" && (blob.Digest != s.digest() || blob.Size != s.n) {
		err = fmt.Errorf("blob %s: %w", blob.Digest, ErrMismatch)
	}
	if err := errors.Join(err, f.Chmod(umask.Of(0o444)), f.Close()); err != nil {
		return "", 0, errors.Join(err, l.root.Remove(tmp))
	}
	if err := l.root.Rename(tmp, Name(s.digest())); err != nil {
		return "", 0, errors.Join(fmt.Errorf("write to layout: %w", err), l.root.Remove(tmp))
	}
	return s.digest(), s.n, nil
}

// Parallel implements Sink.
func (l *Layout) Parallel() int { return parallel }
