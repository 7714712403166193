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

// library is containers/storage, but with shale's way to unpack layers: in a staging
// directory of shale, and with recorded owners if necessary. containers/storage itself
// unpacks below overlay/tempdirs and overlay/staging, where its older releases remove all
// unknown files.
type library struct {
	cstorage.Store
	store *Store
}

// PullOptions implements cstorage.Store. It forbids fetching parts of layers, because the
// library unpacks these by itself.
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

// unpackLayer makes a layer on parent from an uncompressed tar.
func (s *Store) unpackLayer(ctx context.Context, parent string, r io.Reader) (Layer, error) {
	return s.CreateLayer(ctx, parent, func(ctx context.Context, st Staging) (Diff, error) {
		return s.unpack(contextReader{ctx, r}, st)
	})
}
