package builder

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/export"
	"github.com/shale-build/shale/builder/squash"
	"github.com/shale-build/shale/storage"
)

// squash replaces the layers that each platform adds to its base by one layer. The cache
// keeps the layers of the steps.
func (b *build) squash(ctx context.Context, f *finished) error {
	for i, p := range f.Platforms {
		base, err := baseLayers(p)
		if err != nil {
			return err
		}
		if len(p.Layers)-base < 2 {
			continue
		}
		step := newStep(b.deps.Progress, fmt.Sprintf("joining %d layers", len(p.Layers)-base))
		l, err := b.joinLayers(ctx, p.Layers[:base], p.Layers[base:])
		step.done(err)
		if err != nil {
			return err
		}
		f.Platforms[i].Layers = append(p.Layers[:base:base], l)
	}
	return nil
}

// baseLayers returns the number of layers that p has in common with its base image.
func baseLayers(p export.Platform) (n int, err error) {
	if len(p.BaseConfig) == 0 {
		return 0, nil
	}
	var base struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(p.BaseConfig, &base); err != nil {
		return 0, fmt.Errorf("read config of the base image: %w", err)
	}
	for n < len(p.Layers) && n < len(base.RootFS.DiffIDs) && p.Layers[n].DiffID == base.RootFS.DiffIDs[n] {
		n++
	}
	return n, nil
}

// joinLayers imports the layers own as one layer on top of below. It makes the tar stream
// twice, because the import must know the digest in advance.
func (b *build) joinLayers(ctx context.Context, below, own []storage.Layer) (storage.Layer, error) {
	open := func(l storage.Layer) (io.ReadCloser, error) { return b.deps.Store.OpenDiff(l.ID) }
	join := func(w io.Writer) error {
		return squash.Join(ctx, w, squash.Layers(below, open), squash.Layers(own, open))
	}
	sum := digest.Canonical.Digester()
	if err := join(sum.Hash()); err != nil {
		return storage.Layer{}, err
	}
	parent := ""
	if len(below) > 0 {
		parent = below[len(below)-1].ID
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(join(w)) }()
	l, err := b.deps.Store.ImportLayer(ctx, parent, sum.Digest(), r)
	_ = r.Close() // ends join if it is still writing
	return l, err
}
