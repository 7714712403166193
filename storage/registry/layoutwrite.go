package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/oci/layout"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/umask"
)

// Layout is a directory in OCI layout that nobody else writes to through a Layout,
// on this machine, until it is closed.
type Layout struct {
	client *Client
	dir    string
	lock   *os.File
}

// OpenLayout makes dir where there is none and waits until nobody else writes to
// it.
func (c *Client) OpenLayout(ctx context.Context, dir string) (*Layout, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find OCI layout %s: %w", dir, err)
	}
	if err := umask.MkdirAll(umask.Host{}, abs, os.ModePerm); err != nil {
		return nil, fmt.Errorf("make OCI layout: %w", err)
	}
	lock, err := os.Open(abs)
	if err != nil {
		return nil, fmt.Errorf("open OCI layout: %w", err)
	}
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return &Layout{client: c, dir: abs, lock: lock}, nil
		}
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOLCK) {
			// A file system without locks: alone, one hopes.
			return &Layout{client: c, dir: abs, lock: lock}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock OCI layout %s: %w", dir, err), lock.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for OCI layout %s: %w", dir, context.Cause(ctx)), lock.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Close lets others in.
func (l *Layout) Close() error { return l.lock.Close() }

// Digest is of the manifest that a tag stands for, "" for none.
func (l *Layout) Digest(tag string) (digest.Digest, error) {
	index, err := l.index()
	if err != nil {
		return "", err
	}
	for _, m := range index.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] == tag {
			return m.Digest, nil
		}
	}
	return "", nil
}

// Write writes src under a tag. Blobs that are there already are not written
// again.
func (l *Layout) Write(ctx context.Context, src Prepared, tag string, progress Progress) error {
	to, err := layout.NewReference(l.dir, tag)
	if err != nil {
		return fmt.Errorf("OCI layout %s: %w", l.dir, err)
	}
	if err := l.client.pushPrepared(ctx, src, to, PreparedOptions{Progress: progress}); err != nil {
		return fmt.Errorf("write OCI layout %s: %w", l.dir, err)
	}
	if err := l.followUmask(); err != nil {
		return fmt.Errorf("write OCI layout %s: %w", l.dir, err)
	}
	return nil
}

// Modes that the library gives to files and directories of a layout under umask 022.
const (
	libraryFile = 0o644
	libraryDir  = 0o755
)

// followUmask gives what the library wrote the modes that the umask of the user asks for.
// What belongs to another user who writes to the same layout is left alone.
func (l *Layout) followUmask() error {
	file, dir := umask.Of(0o666), umask.Of(fs.ModePerm)
	if file == libraryFile && dir == libraryDir {
		return nil
	}
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // a directory handle
	return fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		switch {
		case err != nil || name == ".":
		case info.Mode() == libraryFile:
			err = root.Chmod(name, file)
		case info.Mode() == fs.ModeDir|libraryDir:
			err = root.Chmod(name, dir)
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil
		}
		return err
	})
}

func (l *Layout) index() (ocispec.Index, error) {
	var index ocispec.Index
	data, err := os.ReadFile(filepath.Join(l.dir, ocispec.ImageIndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return index, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil {
		return index, fmt.Errorf("read OCI layout %s: %w", l.dir, err)
	}
	return index, nil
}

// maxManifest bounds what Sweep reads of one manifest, in bytes.
const maxManifest = 64 << 20

// Sweep removes manifests without a tag whose config is of a media type, and blobs
// that nothing in the layout refers to any more, but for what was written after a
// time: somebody may be reading it. What it cannot read it leaves as it is, with
// all else.
func (l *Layout) Sweep(configType string, after time.Time) error {
	if err := l.sweep(configType, after); err != nil {
		return fmt.Errorf("tidy OCI layout %s: %w", l.dir, err)
	}
	return nil
}

func (l *Layout) sweep(configType string, after time.Time) error {
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only reads
	index, err := l.index()
	if err != nil {
		return err
	}
	s := &sweeper{root: root, used: map[digest.Digest]bool{}}
	kept := slices.DeleteFunc(slices.Clone(index.Manifests), func(m ocispec.Descriptor) bool {
		return m.Annotations[ocispec.AnnotationRefName] == "" && s.old(m.Digest, after) && s.configType(m) == configType
	})
	for _, m := range kept {
		if err := s.mark(m); err != nil {
			return err
		}
	}
	if len(kept) < len(index.Manifests) {
		index.Manifests = kept
		if err := replaceJSON(root, ocispec.ImageIndexFile, index); err != nil {
			return err
		}
	}
	return s.remove(after)
}

// replaceJSON writes a file by rename.
func replaceJSON(root *os.Root, name string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	tmp := "." + name + ".new"
	perm := umask.Of(0o666)
	if err := errors.Join(root.WriteFile(tmp, data, perm), root.Chmod(tmp, perm)); err != nil {
		return err
	}
	return root.Rename(tmp, name)
}

// sweeper finds out which blobs of a layout are used.
type sweeper struct {
	root *os.Root
	used map[digest.Digest]bool
}

func blobPath(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

func (s *sweeper) old(d digest.Digest, after time.Time) bool {
	if d.Validate() != nil {
		return false
	}
	info, err := s.root.Lstat(blobPath(d))
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.ModTime().Before(after)
}

// node is what manifests and indexes name.
type node struct {
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Manifests []ocispec.Descriptor `json:"manifests"`
	Blobs     []ocispec.Descriptor `json:"blobs"`
	Subject   *ocispec.Descriptor  `json:"subject"`
}

func (s *sweeper) read(d digest.Digest) (n node, err error) {
	if err := d.Validate(); err != nil {
		return n, err
	}
	f, err := s.root.Open(blobPath(d))
	if err != nil {
		return n, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err := errors.Join(err, f.Close()); err != nil {
		return n, err
	}
	return n, json.Unmarshal(data, &n)
}

func (s *sweeper) configType(m ocispec.Descriptor) string {
	n, err := s.read(m.Digest)
	if err != nil || n.Config == nil {
		return ""
	}
	return n.Config.MediaType
}

// mark goes from a manifest or an index to all that it names. Those that are not
// there are not followed.
func (s *sweeper) mark(m ocispec.Descriptor) error {
	if s.used[m.Digest] {
		return nil
	}
	s.used[m.Digest] = true
	n, err := s.read(m.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("manifest %s: %w", m.Digest, err)
	}
	for _, list := range [][]ocispec.Descriptor{n.Layers, n.Blobs} {
		for _, d := range list {
			s.used[d.Digest] = true
		}
	}
	if n.Config != nil {
		s.used[n.Config.Digest] = true
	}
	below := n.Manifests
	if n.Subject != nil {
		below = append(below, *n.Subject)
	}
	for _, d := range below {
		if err := s.mark(d); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes the blobs that are not used.
func (s *sweeper) remove(after time.Time) error {
	return fs.WalkDir(s.root.FS(), ocispec.ImageBlobsDir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		dgst := digest.NewDigestFromEncoded(digest.Algorithm(path.Base(path.Dir(name))), path.Base(name))
		if !s.old(dgst, after) || s.used[dgst] {
			return nil
		}
		return s.root.Remove(name)
	})
}
