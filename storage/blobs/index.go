package blobs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/internal/filelock"
)

// indexLock is the file that BuildKit locks to change index.json, and removes afterwards
// (client/ociindex).
const indexLock = ocispec.ImageIndexFile + ".lock"

// LayoutFile returns the content of the file oci-layout.
func LayoutFile() []byte {
	return []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`)
}

// Index returns the content of index.json, or an empty index if the file does not exist.
func (l *Layout) Index() (ocispec.Index, error) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	data, err := l.root.ReadFile(ocispec.ImageIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return index, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil {
		return index, fmt.Errorf("read index.json: %w", err)
	}
	return index, nil
}

// ChangeIndex replaces index.json with the result of change. If another process changes
// it, ChangeIndex waits. The caller must write all blobs that the new index names before.
// On a file system without locks, only one process at a time may write to a layout.
func (l *Layout) ChangeIndex(ctx context.Context, change func(*ocispec.Index)) error {
	lock, err := filelock.Open(ctx, l.root, indexLock, filelock.Exclusive)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		return fmt.Errorf("lock index.json: %w", err)
	default:
		defer func() {
			_ = l.root.Remove(indexLock)
			_ = lock.Close()
		}()
	}
	index, err := l.Index()
	if err != nil {
		return err
	}
	index.SchemaVersion, index.MediaType = 2, ocispec.MediaTypeImageIndex
	change(&index)
	data, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("write index.json: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{ocispec.ImageLayoutFile, LayoutFile()}, {ocispec.ImageIndexFile, data}} {
		if _, err := l.write(f.name, ".", fileMode, bytes.NewReader(f.data), nil); err != nil {
			return err
		}
	}
	return nil
}
