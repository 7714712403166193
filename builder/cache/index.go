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

// touchAfter is how old a record's time of use may grow before a hit renews
// it: renewing at every hit would cost a write for every cached step.
const touchAfter = time.Hour

// Record is what an operation gave.
type Record struct {
	// Layer is the ID of the topmost layer, "" when the result is empty.
	Layer string `json:"layer"`
	// Chain is the chainID of that layer (image-spec, config.md), "" when
	// the result is empty.
	Chain digest.Digest `json:"chain,omitempty"`
	// Created is when the operation ran.
	Created time.Time `json:"created"`
	// Description is the step's name, for listings.
	Description string `json:"description,omitempty"`
}

// Index is a directory of records.
type Index struct{ dir string }

// Open opens the index in dir, which must exist. A caller that finds a record there must
// hold its layer in the store, and look whether it is still there, before using it:
// Prune may remove it at any time.
func Open(dir string) *Index { return &Index{dir: dir} }

// Get looks a key up and renews its time of use.
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
		// A record that cannot be touched is only pruned earlier.
		_ = os.Chtimes(path, now, now)
	}
	return rec, true
}

// Put records what key gave, replacing what was known.
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

// Entry is a record with its key and time of last use.
type Entry struct {
	Key Key
	Record
	Used time.Time
}

// List returns every record; those that cannot be read are left out.
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

// path spreads the records over 256 directories.
func (x *Index) path(key Key) string {
	hex := key.Encoded()
	return filepath.Join(x.dir, hex[:2], hex[2:])
}
