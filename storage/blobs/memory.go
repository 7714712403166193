package blobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Memory remembers which blob resulted from a layer in a form. An entry depends only on
// content, so it never becomes outdated. It is never trusted for bytes that are sent,
// because their digest is computed again. A Memory is safe for concurrent use, also by
// several processes. A nil Memory remembers nothing.
//
// Each entry is a small file that is replaced by rename(2). If a process is killed,
// either the old or the new entry remains.
type Memory struct {
	dir string

	mu    sync.Mutex
	known map[string]Layer // of this process, in case the directory is not writable
}

// The limits of a Memory. If there are more than maxEntries entries, the least recently
// used ones are removed until keptEntries remain.
const (
	maxEntries  = 4096
	keptEntries = 3072
)

// touchAfter is the age from which the time of an entry's last use is renewed.
const touchAfter = time.Hour

// OpenMemory returns a Memory with its entries in dir, which must exist. If dir is "",
// only this process keeps them.
func OpenMemory(dir string) *Memory { return &Memory{dir: dir, known: map[string]Layer{}} }

// Layer is a layer in the form of a blob.
type Layer struct {
	// Desc has the OCI media type.
	Desc ocispec.Descriptor
	// DiffID is the digest of the uncompressed form, which may differ from the store's
	// layer.
	DiffID digest.Digest
}

// entry is the content of a file.
type entry struct {
	Key    string             `json:"key"`
	Desc   ocispec.Descriptor `json:"blob"`
	DiffID digest.Digest      `json:"diffID"`
}

func (m *Memory) path(key string) string {
	return filepath.Join(m.dir, digest.FromString(key).Encoded())
}

func (m *Memory) find(key string) (Layer, bool) {
	if m == nil {
		return Layer{}, false
	}
	m.mu.Lock()
	l, ok := m.known[key]
	m.mu.Unlock()
	if ok || m.dir == "" {
		return l, ok
	}
	path := m.path(key)
	data, err := os.ReadFile(path)
	if err != nil {
		return Layer{}, false
	}
	var e entry
	if json.Unmarshal(data, &e) != nil || e.Key != key || e.Desc.Digest.Validate() != nil || e.DiffID.Validate() != nil || e.Desc.Size < 0 {
		return Layer{}, false
	}
	if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > touchAfter {
		now := time.Now()
		_ = os.Chtimes(path, now, now) // after a failure, the entry is only removed earlier
	}
	return Layer{Desc: e.Desc, DiffID: e.DiffID}, true
}

// put remembers the blob l for key. If it returns an error, a later run needs more time,
// and there is no other harm.
func (m *Memory) put(key string, l Layer) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	m.known[key] = l
	m.mu.Unlock()
	if m.dir == "" {
		return nil
	}
	data, err := json.Marshal(entry{Key: key, Desc: l.Desc, DiffID: l.DiffID})
	if err != nil {
		return fmt.Errorf("remember blob: %w", err)
	}
	tmp, err := os.CreateTemp(m.dir, ".new-")
	if err != nil {
		return fmt.Errorf("remember blob: %w", err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), m.path(key))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("remember blob: %w", err)
	}
	m.bound()
	return nil
}

// bound removes the least recently used entries if there are too many.
func (m *Memory) bound() {
	names, err := os.ReadDir(m.dir)
	if err != nil || len(names) <= maxEntries {
		return
	}
	type used struct {
		name string
		at   time.Time
	}
	list := make([]used, 0, len(names))
	for _, e := range names {
		if info, err := e.Info(); err == nil {
			list = append(list, used{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(list, func(a, b used) int { return a.at.Compare(b.at) })
	for _, u := range list[:max(len(list)-keptEntries, 0)] {
		_ = os.Remove(filepath.Join(m.dir, u.name))
	}
}

// published returns the key of the blob from which a layer was pulled.
func published(diffID digest.Digest) string { return "published/" + diffID.String() }

// Published returns the blob from which the layer diffID was pulled.
func (m *Memory) Published(diffID digest.Digest) (Layer, bool) { return m.find(published(diffID)) }

// Publish remembers the blob from which a layer was pulled. The caller must have computed
// the digests of both.
func (m *Memory) Publish(l Layer) error {
	err := m.Unpacked(l)
	if l.Desc.Digest == l.DiffID {
		return err // a layer that was pulled uncompressed may be pushed compressed
	}
	return errors.Join(err, m.put(published(l.DiffID), l))
}

// Unpacked remembers the layer that a blob contains. The caller must have computed the
// digests of both.
func (m *Memory) Unpacked(l Layer) error { return m.put(ofBlob(l.Desc.Digest), l) }

// ofBlob returns the key of the layer that a blob contains.
func ofBlob(blob digest.Digest) string { return "blob/" + blob.String() }

// Blob returns the layer that a blob contains, if it was computed on this machine.
func (m *Memory) Blob(blob digest.Digest) (Layer, bool) { return m.find(ofBlob(blob)) }
