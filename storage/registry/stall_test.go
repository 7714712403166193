package registry

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/types"

	"github.com/shale-build/shale/internal/stall"
)

// dripping is a registry that sends one byte every five seconds, without end. If mute is
// set, it sends nothing at all.
type dripping struct {
	types.ImageSource
	mute bool
}

func (d dripping) HasThreadSafeGetBlob() bool { return true }

func (d dripping) GetManifest(ctx context.Context, _ *digest.Digest) ([]byte, string, error) {
	<-ctx.Done()
	return nil, "", ctx.Err()
}

func (d dripping) GetBlob(ctx context.Context, _ types.BlobInfo, _ types.BlobInfoCache) (io.ReadCloser, int64, error) {
	if d.mute {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	return io.NopCloser(drops{ctx}), -1, nil
}

type drops struct{ ctx context.Context } //nolint:containedctx // of one transfer

func (d drops) Read(p []byte) (int, error) {
	select {
	case <-time.After(5 * time.Second):
		p[0] = 'x'
		return 1, nil
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	}
}

func TestRegistriesThatDrip(t *testing.T) {
	blob := types.BlobInfo{Digest: digest.FromString("x"), Size: 1 << 20}
	for name, read := range map[string]func(ctx context.Context, src types.ImageSource) error{
		"manifest": func(ctx context.Context, src types.ImageSource) error {
			_, _, err := readManifest(ctx, image.UnparsedInstance(src, nil))
			return err
		},
		"config": func(ctx context.Context, src types.ImageSource) error {
			_, err := (&fetcher{src: src}).config(ctx, blob)
			return err
		},
		"layer": func(ctx context.Context, src types.ImageSource) error {
			w := &wanted{blob: ocispec.Descriptor{Digest: blob.Digest, Size: blob.Size}}
			_, err := (&fetcher{client: New(nil, Options{}), src: src}).hash(ctx, w)
			return err
		},
		"artifact": func(ctx context.Context, src types.ImageSource) error {
			_, err := (&Artifact{src: src}).config(ctx, blob)
			return err
		},
	} {
		for _, mute := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				err := read(t.Context(), dripping{ImageSource: &preparedReader{&preparedRef{}}, mute: mute})
				if took := time.Since(begun); !errors.Is(err, stall.ErrStalled) || took > 3*time.Minute {
					t.Errorf("%s, mute %t: %v after %s", name, mute, err, took)
				}
			})
		}
	}
}
