package blobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/umask"
)

// Name returns the path of a blob in a layout.
func Name(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// Layout is a directory in OCI layout. Each file is written under another name and
// renamed when it is complete.
type Layout struct{ root *os.Root }

var _ Sink = (*Layout)(nil)

// OpenLayout opens the layout in dir. It creates the directory if it does not exist.
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

// Root returns the directory.
func (l *Layout) Root() *os.Root { return l.root }

// Has implements Sink.
func (l *Layout) Has(_ context.Context, blob ocispec.Descriptor) (bool, error) {
	name := Name(blob.Digest)
	if info, err := l.root.Lstat(name); err != nil || !info.Mode().IsRegular() || info.Size() != blob.Size {
		return false, nil //nolint:nilerr // what cannot be looked at is written anew
	}
	// Programs that remove unreferenced blobs keep recent ones, so the time is renewed. A
	// blob of another user keeps its time.
	now := time.Now()
	_ = l.root.Chtimes(name, now, now)
	return true, nil
}

// Put implements Sink.
func (l *Layout) Put(_ context.Context, blob ocispec.Descriptor, r io.Reader) (digest.Digest, int64, error) {
	dir := path.Join(ocispec.ImageBlobsDir, digest.Canonical.String())
	if err := umask.MkdirAll(l.root, dir, os.ModePerm); err != nil {
		return "", 0, fmt.Errorf("write to layout: %w", err)
	}
	s, err := l.write("", dir, blobMode, r, func(s *summed) error {
		if blob.Digest != "" && (blob.Digest != s.digest() || blob.Size != s.n) {
			return fmt.Errorf("blob %s: %w", blob.Digest, ErrMismatch)
		}
		return nil
	})
	if err != nil {
		return "", 0, err
	}
	return s.digest(), s.n, nil
}

// Permissions of files in a layout, before the user's umask applies. They are those of
// BuildKit.
const (
	blobMode = 0o444
	fileMode = 0o666
)

// write writes a file name into the directory dir. If name is "", the file gets the name
// of a blob with its content. If check is not nil and returns an error, the file is not
// kept.
func (l *Layout) write(name, dir string, perm fs.FileMode, r io.Reader, check func(*summed) error) (*summed, error) {
	tmp := path.Join(dir, rand.Text()+".tmp")
	f, err := l.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write to layout: %w", err)
	}
	s := newSummed(f)
	err = s.copy(r)
	if err == nil && check != nil {
		err = check(s)
	}
	if err := errors.Join(err, f.Chmod(umask.Of(perm)), f.Close()); err != nil {
		return nil, errors.Join(err, l.root.Remove(tmp))
	}
	if name == "" {
		name = Name(s.digest())
	}
	if err := l.root.Rename(tmp, name); err != nil {
		return nil, errors.Join(fmt.Errorf("write to layout: %w", err), l.root.Remove(tmp))
	}
	return s, nil
}

// Parallel implements Sink.
func (l *Layout) Parallel() int { return parallel }
