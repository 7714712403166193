package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder/source/shelf"
	"github.com/shale-build/shale/internal/stall"
)

// bounds are the limits of the cache. They are applied after a download.
var bounds = shelf.Policy{KeepEntries: 256, KeepBytes: 4 << 30}

// recordName is the name of the file that describes a download.
const recordName = "record"

// Cache keeps downloads between builds. A download is used again if the host reports that
// it has not changed, or if it has the requested checksum. A file in use is neither
// replaced nor removed.
type Cache struct {
	dir string

	mu   sync.Mutex
	held []*shelf.Entry
}

// OpenCache returns a cache that keeps downloads below dir.
func OpenCache(dir string) *Cache { return &Cache{dir: dir} }

// Download is a file in the cache. It exists until the cache is closed.
type Download struct {
	// Dir contains only the file Name.
	Dir, Name string
	Meta
}

// record describes an entry. It is stored in a file of the entry.
type record struct {
	Dir, Name string
	Meta      Meta
}

// Get returns the file of rawURL. It downloads the file if the cache does not have the
// current version. The file is kept until Close.
func (c *Cache) Get(ctx context.Context, rawURL string, opts Options) (Download, error) {
	base, err := c.hold(ctx, entryName(rawURL, opts))
	if err != nil {
		return Download{}, err
	}
	old, known := readRecord(base)
	if known && opts.Checksum != "" && old.Meta.Digest == opts.Checksum {
		return old.download(base), nil
	}
	if known && opts.Checksum == "" {
		opts.ETag = old.Meta.ETag
		if opts.ETag == "" && old.Meta.Steady {
			opts.Since = old.Meta.LastModified
		}
		same, err := unchanged(ctx, rawURL, opts)
		if err != nil {
			return Download{}, err
		}
		if same {
			return old.download(base), nil
		}
	}
	d, err := c.fetch(ctx, rawURL, opts, base)
	if errors.Is(err, ErrNotModified) {
		return old.download(base), nil
	}
	return d, err
}

// entryName returns a name that depends on all inputs that can change the file.
func entryName(rawURL string, opts Options) string {
	id := func(n *uint32) string {
		if n == nil {
			return ""
		}
		return fmt.Sprint(*n)
	}
	parts := []string{
		"download 1", rawURL, opts.Filename, id(opts.Perm), id(opts.UID), id(opts.GID), opts.AuthSecret,
		opts.Header.Get("Accept"), opts.Header.Get("User-Agent"),
	}
	return digest.FromString(strings.Join(parts, "\x00")).Encoded()[:32]
}

// hold locks the entry so that it is not removed. If no other process uses the entry,
// hold removes old versions and the files of killed downloads.
func (c *Cache) hold(ctx context.Context, name string) (string, error) {
	e, err := shelf.Shelf(c.dir).Take(ctx, name, shelf.Shared)
	if err != nil {
		return "", err
	}
	if e.TryLock() {
		r, _ := readRecord(e.Dir)
		if err := errors.Join(e.Empty(recordName, r.Dir), e.Lock(ctx, shelf.Shared)); err != nil {
			return "", errors.Join(err, e.Close())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = append(c.held, e)
	return e.Dir, nil
}

// Close releases the downloads. They may then be removed from the cache.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, e := range c.held {
		errs = append(errs, e.Close())
	}
	c.held = nil
	return errors.Join(errs...)
}

func readRecord(base string) (record, bool) {
	var r record
	data, err := os.ReadFile(filepath.Join(base, recordName))
	if err != nil || json.Unmarshal(data, &r) != nil || !isName(r.Dir) || !isName(r.Name) {
		return r, false
	}
	info, err := os.Lstat(filepath.Join(base, r.Dir, r.Name))
	return r, err == nil && info.Mode().IsRegular() && info.Size() == r.Meta.Size
}

func (r record) download(base string) Download {
	return Download{Dir: filepath.Join(base, r.Dir), Name: r.Name, Meta: r.Meta}
}

// unchanged sends a HEAD request and reports whether the ETag is still the same. Some
// servers send an ETag but do not support If-None-Match. It returns false if the answer
// is not clear.
func unchanged(ctx context.Context, rawURL string, opts Options) (bool, error) {
	u, err := url.Parse(rawURL)
	if err != nil || opts.ETag == "" {
		return false, nil
	}
	ctx, watch := stall.New(ctx)
	defer watch.Stop()
	resp, err := request(ctx, http.MethodHead, u, opts)
	if errors.Is(err, ErrNotModified) {
		return true, nil
	}
	if err != nil {
		return false, context.Cause(ctx)
	}
	defer func() { _ = resp.Body.Close() }()
	return strong(resp.Header.Get("ETag")) == strong(opts.ETag), nil
}

// strong returns an ETag without the mark of a weak ETag. BuildKit also accepts weak
// ETags.
func strong(etag string) string { return strings.TrimPrefix(etag, "W/") }

// fetch downloads to a new directory and records it as the current version of the entry.
func (c *Cache) fetch(ctx context.Context, rawURL string, opts Options, base string) (_ Download, err error) {
	dir, err := os.MkdirTemp(base, "file-")
	if err != nil {
		return Download{}, fmt.Errorf("make directory for a download: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	file, meta, err := Fetch(ctx, rawURL, opts, dir)
	if err != nil {
		return Download{}, err
	}
	r := record{Dir: filepath.Base(dir), Name: filepath.Base(file), Meta: meta}
	if err := r.write(base); err != nil {
		return Download{}, fmt.Errorf("remember a download: %w", err)
	}
	if _, err := shelf.Shelf(c.dir).Trim(bounds); err != nil {
		return Download{}, err
	}
	return r.download(base), nil
}

func (r record) write(base string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(base, "record-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(base, recordName))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
