package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/umask"
	"github.com/shale-build/shale/storage/blobs"
)

// annotationImageName is how containerd and docker find an image's name in an
// index.json, where OCI's own annotation has the tag only.
const annotationImageName = "io.containerd.image.name"

// Descriptor is the root of img as an archive or layout lists it: with a time.
func (img *Image) Descriptor() ocispec.Descriptor {
	desc := img.Root
	desc.Annotations = maps.Clone(desc.Annotations)
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	if _, ok := desc.Annotations[ocispec.AnnotationCreated]; !ok {
		at := time.Now()
		if t := img.Created(); t != nil {
			at = *t
		}
		desc.Annotations[ocispec.AnnotationCreated] = at.UTC().Format(time.RFC3339)
	}
	return desc
}

// named are the entries of an index.json: one for every complete name.
func named(desc ocispec.Descriptor, names []string) []ocispec.Descriptor {
	if len(names) == 0 {
		return []ocispec.Descriptor{desc}
	}
	list := make([]ocispec.Descriptor, len(names))
	for i, name := range names {
		list[i] = desc
		list[i].Annotations = maps.Clone(desc.Annotations)
		list[i].Annotations[annotationImageName] = name
		list[i].Annotations[ocispec.AnnotationRefName] = tagOf(name)
	}
	return list
}

func tagOf(name string) string {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	if tagged, ok := reference.TagNameOnly(ref).(reference.Tagged); ok {
		return tagged.Tag()
	}
	return name
}

func indexJSON(entries []ocispec.Descriptor) ([]byte, error) {
	data, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: entries,
	})
	if err != nil {
		return nil, fmt.Errorf("write index.json: %w", err)
	}
	return data, nil
}

var layoutFile = []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`)

// Layout completes an OCI layout that has the layers of img. Images of other names
// and blobs that are there already are kept. index.json is replaced last, under the
// lock that BuildKit takes.
func Layout(ctx context.Context, l *blobs.Layout, img *Image, names []string) error {
	for _, p := range img.Parts() {
		if err := p.write(ctx, l); err != nil {
			return err
		}
	}
	entries := named(img.Descriptor(), names)
	if len(names) == 0 {
		// An image without a name has the tag latest in a layout.
		entries[0].Annotations[ocispec.AnnotationRefName] = "latest"
	}
	return AddToLayout(l, entries)
}

// AddToLayout adds entries to index.json, which replace those of the same names.
func AddToLayout(l *blobs.Layout, entries []ocispec.Descriptor) error {
	unlock, err := lockIndex(l.Root())
	if err != nil {
		return err
	}
	defer unlock()
	return addToIndex(l.Root(), entries)
}

// putFile lets a file appear complete or not at all.
func putFile(root *os.Root, name string, size int64, r io.Reader) error {
	if err := umask.MkdirAll(root, path.Dir(name), os.ModePerm); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	tmp := fmt.Sprintf("%s.%d.tmp", name, os.Getpid())
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	n, err := io.Copy(f, r)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	err = errors.Join(err, f.Chmod(umask.Of(0o666)), f.Close())
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		_ = root.Remove(tmp)
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// lockIndex waits until nobody else writes index.json.
func lockIndex(root *os.Root) (unlock func(), err error) {
	const name = ocispec.ImageIndexFile + ".lock"
	f, err := root.OpenFile(name, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock index.json: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock index.json: %w", err), f.Close())
	}
	return func() {
		_ = root.Remove(name)
		_ = f.Close()
	}, nil
}

func addToIndex(root *os.Root, entries []ocispec.Descriptor) error {
	var index ocispec.Index
	data, err := root.ReadFile(ocispec.ImageIndexFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read index.json: %w", err)
	default:
		if err := json.Unmarshal(data, &index); err != nil {
			return fmt.Errorf("read index.json: %w", err)
		}
	}
	for _, e := range entries {
		index.Manifests = append(without(index.Manifests, e), e)
	}
	if data, err = indexJSON(index.Manifests); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{ocispec.ImageLayoutFile, layoutFile}, {ocispec.ImageIndexFile, data}} {
		if err := putFile(root, f.name, int64(len(f.data)), bytes.NewReader(f.data)); err != nil {
			return err
		}
	}
	return nil
}

func without(list []ocispec.Descriptor, e ocispec.Descriptor) (kept []ocispec.Descriptor) {
	for _, old := range list {
		if old.Annotations[annotationImageName] != e.Annotations[annotationImageName] ||
			old.Annotations[ocispec.AnnotationRefName] != e.Annotations[ocispec.AnnotationRefName] {
			kept = append(kept, old)
		}
	}
	return kept
}
