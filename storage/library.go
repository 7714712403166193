package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	cstorage "go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
)

// library is containers/storage in which layers are unpacked as shale unpacks them:
// in a staging directory of its own, with owners recorded where that must be. The
// library would do it below overlay/tempdirs and overlay/staging, where older
// releases of it remove what they do not know.
type library struct {
	cstorage.Store
	store *Store
}

// PullOptions implements cstorage.Store. It forbids fetching parts of layers, which
// the library unpacks by itself.
func (l library) PullOptions() map[string]string {
	o := maps.Clone(l.Store.PullOptions())
	if o == nil {
		o = map[string]string{}
	}
	o["enable_partial_images"] = "false"
	return o
}

// PutLayer implements cstorage.Store.
func (l library) PutLayer(id, parent string, names []string, label string, writeable bool, o *cstorage.LayerOptions, diff io.Reader) (*cstorage.Layer, int64, error) {
	if diff == nil || writeable {
		return l.Store.PutLayer(id, parent, names, label, writeable, o, diff)
	}
	plain, err := archive.DecompressStream(diff)
	if err != nil {
		return nil, -1, fmt.Errorf("decompress layer: %w", err)
	}
	made, err := l.store.unpackLayer(context.Background(), parent, plain)
	if err = errors.Join(err, plain.Close()); err != nil {
		return nil, -1, err
	}
	layer, err := l.Layer(made.ID)
	return layer, made.Size, err
}

// unpackLayer makes a layer on parent of an uncompressed tar.
func (s *Store) unpackLayer(ctx context.Context, parent string, r io.Reader) (Layer, error) {
	return s.CreateLayer(ctx, parent, func(ctx context.Context, st Staging) (Diff, error) {
		return s.unpack(contextReader{ctx, r}, st)
	})
}
