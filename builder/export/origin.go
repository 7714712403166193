package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
)

// Origin is a layer of a base image in the form it was published in.
type Origin struct {
	Desc ocispec.Descriptor
	// Open fetches it from where it was published.
	Open func(context.Context) (io.ReadCloser, error)
}

// ociLayerTypes are OCI's names for docker's.
var ociLayerTypes = map[string]string{
	mediaTypeLayer2:                 ocispec.MediaTypeImageLayer,
	mediaTypeLayer2Gzip:             ocispec.MediaTypeImageLayerGzip,
	mediaTypeLayer2Zstd:             ocispec.MediaTypeImageLayerZstd,
	ocispec.MediaTypeImageLayer:     ocispec.MediaTypeImageLayer,
	ocispec.MediaTypeImageLayerGzip: ocispec.MediaTypeImageLayerGzip,
	ocispec.MediaTypeImageLayerZstd: ocispec.MediaTypeImageLayerZstd,
}

// published returns a layer of the base as it was published, so that the image
// shares it with its base and with whatever else is built on that. It is fetched
// when somebody opens it: a registry that has it does not.
func (ls *Layers) published(ctx context.Context, l storage.Layer) (Layer, bool) {
	if ls.Origin == nil {
		return Layer{}, false
	}
	origin, ok := ls.Origin(l.DiffID)
	mediaType := ociLayerTypes[origin.Desc.MediaType]
	if !ok || mediaType == "" || origin.Desc.Digest.Validate() != nil {
		return Layer{}, false
	}
	out := Layer{DiffID: l.DiffID}
	out.Desc = ocispec.Descriptor{MediaType: mediaType, Digest: origin.Desc.Digest, Size: origin.Desc.Size}
	fetch := sync.OnceValues(func() (string, error) { return ls.fetch(ctx, origin) })
	out.open = func() (io.ReadCloser, error) {
		path, err := fetch()
		if err != nil {
			return nil, err
		}
		return os.Open(path)
	}
	return out, true
}

// errOrigin is wrapped when a layer cannot be had from where it was published.
var errOrigin = errors.New("fetch layer of the base image")

// Unpublished tells that an image could not be written because a layer of its
// base cannot be had any more in the form it was published in.
func (ls *Layers) Unpublished() bool { return ls.lost.Load() }

func (ls *Layers) fetch(ctx context.Context, o Origin) (path string, err error) {
	defer func() {
		if err != nil {
			ls.lost.Store(true)
			err = fmt.Errorf("%w: %w", errOrigin, err)
		}
	}()
	r, err := o.Open(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	tmp, err := os.CreateTemp(ls.TempDir, "layer-")
	if err != nil {
		return "", err
	}
	verifier := o.Desc.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(tmp, verifier), io.LimitReader(contextReader{ctx, r}, o.Desc.Size+1))
	if err == nil && (n != o.Desc.Size || !verifier.Verified()) {
		err = fmt.Errorf("%s is not what was sent for it", o.Desc.Digest)
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		_ = os.Remove(tmp.Name())
		return "", err
	}
	return tmp.Name(), nil
}

// have tells whether a published layer can be had, by fetching it.
func (l Layer) have() bool {
	r, err := l.open()
	if err != nil {
		return false
	}
	_ = r.Close()
	return true
}
