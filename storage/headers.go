package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/compress/gzip"
	"go.podman.io/storage/pkg/idtools"
)

const (
	// ownerRecord is the attribute that holds a file's owner, mode and type.
	ownerRecord = idtools.ContainersOverrideXattr
	paxXattr    = "SCHILY.xattr."
	paxSparse   = "GNU.sparse."
)

func formatOwner(uid, gid int, mode fs.FileMode, major, minor int) string {
	return idtools.FormatContainersOverrideXattrDevice(uid, gid, mode, major, minor)
}

// zeros is an opener. Its files contain only zeros.
type zeros struct{}

func (zeros) open(string) (io.ReadCloser, error) { return zeros{}, nil }

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Close implements io.Closer.
func (zeros) Close() error { return nil }

// openHeaders returns a layer's tar with zeros in place of the content of its files.
func (s *Store) openHeaders(id string) (io.ReadCloser, error) {
	recipe, err := os.Open(s.tarSplitPath(id))
	if err != nil {
		return nil, fmt.Errorf("open tar-split: %w", err)
	}
	gz, err := gzip.NewReader(recipe)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: open tar-split: %w", ErrCorruptLayer, err), recipe.Close())
	}
	return &layerReader{assembler: newAssembler(gz, zeros{}), closers: []io.Closer{gz, recipe}}, nil
}

func readNamedOwners(file string) (list []NamedOwner, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(data, &list)
	return list, err
}

// writeNamedOwners writes the file under another name and renames it, so that the file
// appears complete or not at all.
func writeNamedOwners(file string, list []NamedOwner) error {
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	temp := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, file)
}
