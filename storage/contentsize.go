package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	tarsplit "github.com/vbatts/tar-split/tar/storage"
)

// ContentSize returns the sum of the sizes of a layer's files in bytes. docker calls this
// the size of a layer; Layer.Size also counts the headers of the tar. ContentSize reads
// the layer's tar-split. If there is none, it returns Layer.Size, or 0 if that is not
// known.
func (s *Store) ContentSize(l Layer) (int64, error) {
	f, err := os.Open(s.tarSplitPath(l.ID))
	if errors.Is(err, os.ErrNotExist) {
		return max(0, l.Size), nil
	}
	if err != nil {
		return 0, fmt.Errorf("open tar-split of layer %s: %w", short(l.ID), err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return 0, fmt.Errorf("%w: open tar-split of layer %s: %w", ErrCorruptLayer, short(l.ID), err)
	}
	defer gz.Close() //nolint:errcheck // only read
	size, err := sumFiles(gz)
	if err != nil {
		return 0, fmt.Errorf("layer %s: %w", short(l.ID), err)
	}
	return size, nil
}

func sumFiles(recipe io.Reader) (int64, error) {
	var sum int64
	for entries := json.NewDecoder(recipe); ; {
		var e tarsplit.Entry
		err := entries.Decode(&e)
		if errors.Is(err, io.EOF) {
			return sum, nil
		}
		if err != nil {
			return 0, fmt.Errorf("%w: tar-split: %w", ErrCorruptLayer, err)
		}
		if e.Type == tarsplit.FileType {
			sum += max(0, e.Size)
		}
	}
}
