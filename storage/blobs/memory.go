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

// Memory remembers which blob a layer gave in a form. What it says is true of the
// content or of nothing: it is never trusted for bytes that are then sent. It is
// safe for concurrent use, by several processes too; nil remembers nothing.
//
// Each entry is a small file that is replaced by rename(2), so that whoever is
// killed leaves the old one or the new one.
type Memory struct {
	dir string

	mu    sync.Mutex
	known map[string]Layer // of this process, where the directory cannot be written
}

// The number of entries in a Memory: above maxEntries the least recently used are
// forgotten until keptEntries remain.
const (
	maxEntries  = 4096
	keptEntries = 3072
)

// touchAfter is how old an entry's time of use may grow before it is renewed.
const touchAfter = time.Hour

// OpenMemory keeps entries in dir, which must exist; "" keeps them in this process
// only.
func OpenMemory(dir string) *Memory { return &Memory{dir: dir, known: map[string]Layer{}} }

// Layer is a layer as a blob.
type Layer struct {
	// Desc has OCI's media type.
	Desc ocispec.Descriptor
	// DiffID is of the uncompressed form, which is not always the store's layer.
	DiffID digest.Digest
}

// entry is what a file has.
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
		_ = os.Chtimes(path, now, now) // it is only forgotten earlier otherwise
	}
	return Layer{Desc: e.Desc, DiffID: e.DiffID}, true
}

// put remembers what key gave. That it could not be written down costs time later
// on and nothing else.
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

// bound forgets what has not been used for longest when there is too much.
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

// published is the key of the blob that a layer came in.
func published(diffID digest.Digest) string { return "published/" + diffID.String() }

// Published returns the blob that the layer diffID was pulled as.
func (m *Memory) Published(diffID digest.Digest) (Layer, bool) { return m.find(published(diffID)) }

// Publish remembers the blob that a layer was pulled as. The caller has computed
// the digests of both.
func (m *Memory) Publish(l Layer) error {
	err := m.Unpacked(l)
	if l.Desc.Digest == l.DiffID {
		return err // a layer is not pushed uncompressed because it once was
	}
	return errors.Join(err, m.put(published(l.DiffID), l))
}

// Unpacked remembers the layer that is in a blob. The caller has computed the
// digests of both.
func (m *Memory) Unpacked(l Layer) error { return m.put(ofBlob(l.Desc.Digest), l) }

// ofBlob is the key of the layer that is in a blob.
func ofBlob(blob digest.Digest) string { return "blob/" + blob.String() }

// Blob returns the layer that is in a blob, as far as that was computed here.
func (m *Memory) Blob(blob digest.Digest) (Layer, bool) { return m.find(ofBlob(blob)) }
