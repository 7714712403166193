package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/internal/filelock"
	"github.com/shale-build/shale/storage/blobs"
)

// Layout is a directory in OCI layout that is open for writing. Until Close, no other
// process writes to it through a Layout. Other processes may still add images through
// blobs.Layout.
type Layout struct {
	dir  string
	lock *os.File
	to   *blobs.Layout
}

// OpenLayout opens the layout in dir and locks it. It creates dir if it does not exist.
// It waits while another process has locked the layout. If the file system does not
// support locks, the layout is not locked, and the caller must ensure that there is only
// one writer.
func (c *Client) OpenLayout(ctx context.Context, dir string) (*Layout, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find OCI layout %s: %w", dir, err)
	}
	to, err := blobs.OpenLayout(abs)
	if err != nil {
		return nil, fmt.Errorf("open OCI layout: %w", err)
	}
	lock, err := to.Root().Open(".")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open OCI layout: %w", err), to.Close())
	}
	l := &Layout{dir: abs, lock: lock, to: to}
	if err := filelock.Lock(ctx, lock, filelock.Exclusive); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, errors.Join(fmt.Errorf("lock OCI layout %s: %w", dir, err), l.Close())
	}
	return l, nil
}

// Close releases the lock.
func (l *Layout) Close() error { return errors.Join(l.lock.Close(), l.to.Close()) }

// Digest returns the digest of the manifest with a tag, or "" if there is none.
func (l *Layout) Digest(tag string) (digest.Digest, error) {
	index, err := l.to.Index()
	if err != nil {
		return "", fmt.Errorf("OCI layout %s: %w", l.dir, err)
	}
	for _, m := range index.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] == tag {
			return m.Digest, nil
		}
	}
	return "", nil
}

// Write writes src to the layout and gives it a tag. Blobs that the layout has already
// are not written again. If another manifest has the tag, it stays in the index without a
// tag.
func (l *Layout) Write(ctx context.Context, src Prepared, tag string, progress Progress) error {
	if err := l.write(ctx, src, tag, progress); err != nil {
		return fmt.Errorf("write OCI layout %s: %w", l.dir, err)
	}
	return nil
}

func (l *Layout) write(ctx context.Context, src Prepared, tag string, progress Progress) error {
	for _, data := range append(slices.Collect(maps.Values(src.Manifests)), src.Manifest) {
		n, err := parseNode(data)
		if err != nil {
			return err
		}
		for _, blob := range n.blobs() {
			if err := l.copyBlob(ctx, src, blob, progress); err != nil {
				return fmt.Errorf("blob %s: %w", blob.Digest, err)
			}
		}
		manifest := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
		if has, err := l.to.Has(ctx, manifest); err != nil {
			return err
		} else if has {
			continue
		}
		if _, _, err := l.to.Put(ctx, manifest, bytes.NewReader(data)); err != nil {
			return err
		}
	}
	desc := ocispec.Descriptor{
		MediaType: src.MediaType, Digest: digest.FromBytes(src.Manifest), Size: int64(len(src.Manifest)),
		Annotations: map[string]string{ocispec.AnnotationRefName: tag},
	}
	return l.to.ChangeIndex(ctx, func(index *ocispec.Index) {
		// As in a registry, the old manifest of the tag stays until Sweep removes it.
		for i, m := range index.Manifests {
			if m.Annotations[ocispec.AnnotationRefName] == tag {
				index.Manifests[i].Annotations = maps.Clone(m.Annotations)
				delete(index.Manifests[i].Annotations, ocispec.AnnotationRefName)
			}
		}
		index.Manifests = slices.DeleteFunc(index.Manifests, func(m ocispec.Descriptor) bool {
			return m.Digest == desc.Digest && len(m.Annotations) == 0
		})
		index.Manifests = append(index.Manifests, desc)
	})
}

func (l *Layout) copyBlob(ctx context.Context, src Prepared, blob ocispec.Descriptor, progress Progress) (err error) {
	if has, err := l.to.Has(ctx, blob); err != nil {
		return err
	} else if !has {
		r, size, err := src.Open(blob.Digest)
		if err != nil {
			return err
		}
		in := &cancelReader{ReadCloser: r, ctx: ctx}
		_, _, err = l.to.Put(ctx, ocispec.Descriptor{Digest: blob.Digest, Size: size}, in)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	if progress != nil {
		progress.Update(blob.Digest.String(), blob.Size, blob.Size, true)
	}
	return nil
}

// maxManifest is the size to which Sweep reads a manifest, in bytes.
const maxManifest = 64 << 20

// Sweep removes two kinds of objects: manifests without a tag whose config has the media
// type configType, and blobs that no manifest or index in the layout refers to. It keeps
// objects that were written after the given time, or that a writer found in place after
// it. Another process may be about to add those to index.json, or may be reading them. If
// a manifest cannot be read, Sweep returns an error and does not remove any blobs.
func (l *Layout) Sweep(ctx context.Context, configType string, after time.Time) error {
	if err := l.sweep(ctx, configType, after); err != nil {
		return fmt.Errorf("remove unused blobs of OCI layout %s: %w", l.dir, err)
	}
	return nil
}

func (l *Layout) sweep(ctx context.Context, configType string, after time.Time) error {
	s := &sweeper{root: l.to.Root(), used: map[digest.Digest]bool{}}
	unused := func(m ocispec.Descriptor) bool {
		return m.Annotations[ocispec.AnnotationRefName] == "" && s.old(m.Digest, after) && s.configType(m) == configType
	}
	index, err := l.to.Index()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(index.Manifests, unused) {
		err := l.to.ChangeIndex(ctx, func(index *ocispec.Index) { index.Manifests = slices.DeleteFunc(index.Manifests, unused) })
		if err != nil {
			return err
		}
		if index, err = l.to.Index(); err != nil {
			return err
		}
	}
	for _, m := range index.Manifests {
		if err := s.mark(m); err != nil {
			return err
		}
	}
	return s.remove(after)
}

// sweeper finds the blobs of a layout that are in use.
type sweeper struct {
	root *os.Root
	used map[digest.Digest]bool
}

func blobPath(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// old reports whether a blob was last written before the time after, or does not exist.
func (s *sweeper) old(d digest.Digest, after time.Time) bool {
	if d.Validate() != nil {
		return false
	}
	info, err := s.root.Lstat(blobPath(d))
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.ModTime().Before(after)
}

// node contains the references of a manifest or an index.
type node struct {
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Manifests []ocispec.Descriptor `json:"manifests"`
	Blobs     []ocispec.Descriptor `json:"blobs"`
	Subject   *ocispec.Descriptor  `json:"subject"`
}

// blobs returns the descriptors of n that are not manifests.
func (n node) blobs() []ocispec.Descriptor {
	list := slices.Concat(n.Layers, n.Blobs)
	if n.Config != nil {
		list = append(list, *n.Config)
	}
	return list
}

func parseNode(data []byte) (n node, err error) {
	if err := json.Unmarshal(data, &n); err != nil {
		return n, fmt.Errorf("read manifest: %w", err)
	}
	return n, nil
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
	return parseNode(data)
}

func (s *sweeper) configType(m ocispec.Descriptor) string {
	n, err := s.read(m.Digest)
	if err != nil || n.Config == nil {
		return ""
	}
	return n.Config.MediaType
}

// mark marks a manifest or an index and everything that it refers to as used. It ignores
// manifests that are not in the layout.
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
	for _, d := range n.blobs() {
		s.used[d.Digest] = true
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

// remove deletes the blobs that are not used and that were written before the time after.
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
