package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
)

// A hit renews a record's time of last use only if that is older than touchAfter.
// Otherwise each cached step would cost a write.
const touchAfter = time.Hour

// Record is the result of an operation.
type Record struct {
	// Layer is the ID of the topmost layer. It is "" if the result is empty.
	Layer string `json:"layer"`
	// Chain is the chainID of that layer (image-spec, config.md). It is "" if the result
	// is empty.
	Chain digest.Digest `json:"chain,omitempty"`
	// Created is when the operation ran.
	Created time.Time `json:"created"`
	// Description is the name of the step, for lists.
	Description string `json:"description,omitempty"`
}

// Index is a directory of records. It is safe for concurrent use, also by several
// processes.
type Index struct{ dir string }

// Open opens the index in dir, which must exist. Before the layer of a record is used,
// the caller must hold it in the store and then check that it still exists: Prune may
// remove it at any time.
func Open(dir string) *Index { return &Index{dir: dir} }

// Get returns the record of a key and renews its time of last use. It returns false if
// there is no record or if the record cannot be read.
func (x *Index) Get(key Key) (Record, bool) {
	path := x.path(key)
	data, err := os.ReadFile(path)
	if err != nil {
		return Record{}, false
	}
	var rec Record
	if json.Unmarshal(data, &rec) != nil {
		return Record{}, false
	}
	if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > touchAfter {
		now := time.Now()
		// If this fails, the record is only pruned earlier.
		_ = os.Chtimes(path, now, now)
	}
	return rec, true
}

// Put writes the record of a key and replaces an existing one.
func (x *Index) Put(key Key, rec Record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode cache record: %w", err)
	}
	path := x.path(key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make cache directory: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return fmt.Errorf("write cache record: %w", err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write cache record: %w", err)
	}
	return nil
}

// Entry is a record with its key and its time of last use.
type Entry struct {
	Key Key
	Record
	Used time.Time
}

// List returns all records. It skips those that cannot be read.
func (x *Index) List() ([]Entry, error) { return list(x.dir) }

func list(dir string) ([]Entry, error) {
	var entries []Entry
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return ignoreGone(err)
		}
		if d.IsDir() {
			return nil
		}
		key := digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(filepath.Dir(path))+d.Name())
		if key.Validate() == nil {
			if entry, ok := readEntry(path, key); ok {
				entries = append(entries, entry)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list cache records: %w", err)
	}
	return entries, nil
}

func readEntry(path string, key Key) (Entry, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Entry{}, false
	}
	info, err := os.Stat(path)
	if err != nil {
		return Entry{}, false
	}
	entry := Entry{Key: key, Used: info.ModTime()}
	return entry, json.Unmarshal(data, &entry.Record) == nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// path returns the file of a record. The records are distributed over 256 directories.
func (x *Index) path(key Key) string {
	hex := key.Encoded()
	return filepath.Join(x.dir, hex[:2], hex[2:])
}
