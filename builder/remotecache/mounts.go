package remotecache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/cachemount"
)

// annotationMount is the annotation of a blob that contains the ID of its cache mount.
const annotationMount = "shale.cache.mount"

// Limits of the data of cache mounts that is read.
const (
	maxMounts  = 10_000
	maxMountID = 4096
	// maxMountSize is the limit for the tar of one cache mount, in bytes.
	maxMountSize = 64 << 30
)

// Mount is the content of a RUN --mount=type=cache: a blob with the tar of package
// cachemount. It is not part of any layer.
type Mount struct {
	// ID is the ID of the cache mount in the Dockerfile.
	ID string
	// DiffID is the digest of the tar. Size is its length in bytes.
	DiffID digest.Digest
	Size   int64
	Blob   ocispec.Descriptor
	// Used is when a build last used the cache mount.
	Used time.Time
}

// AddMount adds or replaces a cache mount.
func (c *Cache) AddMount(key cachemount.Key, m Mount) {
	if c.mounts == nil {
		c.mounts = map[cachemount.Key]Mount{}
	}
	m.Blob.Annotations = map[string]string{annotationMount: m.ID}
	c.mounts[key] = m
}

// Mount returns the cache mount of a key, and false if there is none.
func (c *Cache) Mount(key cachemount.Key) (Mount, bool) {
	m, ok := c.mounts[key]
	return m, ok
}

// configMount is a cache mount in the config of a cache.
type configMount struct {
	Key    cachemount.Key `json:"key"`
	ID     string         `json:"id"`
	DiffID digest.Digest  `json:"diffID"`
	Size   int64          `json:"size"`
	Blob   digest.Digest  `json:"blob"`
	Used   time.Time      `json:"used"`
}

// addMounts checks the cache mounts of a config and adds them.
func (c *Cache) addMounts(list []configMount, blobs map[digest.Digest]ocispec.Descriptor) error {
	if len(list) > maxMounts {
		return fmt.Errorf("%d cache mounts are too many", len(list))
	}
	for _, m := range list {
		blob, ok := blobs[m.Blob]
		if !ok {
			return fmt.Errorf("cache mount %q: its blob %q is not among the manifest's", m.ID, m.Blob)
		}
		if err := errors.Join(m.Key.Validate(), m.DiffID.Validate()); err != nil {
			return fmt.Errorf("cache mount %q: %w", m.ID, err)
		}
		if m.Size < 0 || m.Size > maxMountSize || len(m.ID) > maxMountID {
			return fmt.Errorf("cache mount %.100q: it cannot have %d bytes and a name of %d", m.ID, m.Size, len(m.ID))
		}
		c.AddMount(m.Key, Mount{ID: m.ID, DiffID: m.DiffID, Size: m.Size, Blob: blob, Used: m.Used})
	}
	return nil
}

// RestoreMount is a cachemount.Restorer. It uses the first source that has key and allows
// its cache mount to be restored. If that fails, it logs a warning and returns the error,
// and does not try other sources.
func (im *Importer) RestoreMount(ctx context.Context, key cachemount.Key, dir string) (found bool, err error) {
	for _, open := range im.sources {
		src, ok := open()
		if !ok {
			continue
		}
		m, ok := src.Cache.Mount(key)
		if !ok || src.Mounts == nil || !src.Mounts(m.ID) {
			continue
		}
		if err := im.unpack(ctx, src, m, dir); err != nil {
			if ctx.Err() == nil {
				im.Logger.Warn("a cache mount could not be imported; it starts as if it were new", "from", src.Name, "id", m.ID, "error", err)
			}
			return false, err
		}
		return true, nil
	}
	return false, nil
}

func (im *Importer) unpack(ctx context.Context, src Source, m Mount, dir string) (err error) {
	done := im.Pulling(src.Name, m.Blob)
	defer func() { done(err) }()
	r, err := src.Layer(ctx, m.Blob)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return cachemount.Unpack(ctx, r, dir, m.Size, im.Owners)
}
