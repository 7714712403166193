package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/go-csvvalue"

	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/remotecache"
)

// mountChoice says which cache mounts are imported or exported with a cache.
type mountChoice struct {
	all bool
	ids []string
}

// readMounts parses mounts=true|false|ID[,ID…]. An ID that is also a boolean value is
// read as the boolean.
func readMounts(text string, otherwise bool) (mountChoice, error) {
	if text == "" {
		return mountChoice{all: otherwise}, nil
	}
	if all, err := strconv.ParseBool(text); err == nil {
		return mountChoice{all: all}, nil
	}
	fields, err := csvvalue.Fields(text, nil)
	if err != nil {
		return mountChoice{}, fmt.Errorf("mounts %q is no list of names: %w", text, err)
	}
	var m mountChoice
	for _, f := range fields {
		if mountName(f) == "" {
			return m, fmt.Errorf("mounts %q has an empty name", text)
		}
		m.ids = append(m.ids, mountName(f))
	}
	return m, nil
}

// mountName returns the ID of a cache mount as users write it. The front end adds a
// namespace, which is empty in most cases, and a slash before it.
func mountName(id string) string { return strings.Trim(path.Clean("/"+id), "/") }

func (m mountChoice) none() bool { return !m.all && len(m.ids) == 0 }

func (m mountChoice) includes(id string) bool {
	return m.all || slices.Contains(m.ids, mountName(id))
}

// addMounts adds the cache mounts of the target to c: all cache mounts of this build, or
// those with certain IDs. If no step of this build used a cache mount and the cache
// already has it, it is not packed again. A cache mount that cannot be packed is reported
// and left out; the version in the cache stays.
func (x *cacheExport) addMounts(ctx context.Context, c, before *remotecache.Cache, now time.Time) error {
	choice := x.target.mounts
	if choice.none() {
		return nil
	}
	if choice.all {
		choice = mountChoice{ids: x.mountIDs()}
	}
	list, err := x.caches.Find(choice.includes)
	if err != nil {
		return err
	}
	found := map[string]bool{}
	for _, m := range list {
		found[mountName(m.ID)] = true
		if m.Slot != 0 {
			continue
		}
		used := x.caches.Used(m.Key)
		old, has := remotecache.Mount{}, false
		if before != nil {
			old, has = before.Mount(m.Key)
		}
		if has && !used {
			continue
		}
		packed, err := x.packMount(ctx, m, old)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			x.deps.Logger.Warn("a cache mount was not exported", "id", m.ID, "error", err)
			continue
		}
		if packed.Used = m.Used; used {
			packed.Used = now
		}
		c.AddMount(m.Key, packed)
	}
	for _, id := range x.target.mounts.ids {
		if !found[id] {
			x.deps.Logger.Warn("there is no cache mount to export", "id", id)
		}
	}
	return nil
}

// mountIDs returns the names of the cache mounts of all steps of this build, also of
// steps that did not run.
func (x *cacheExport) mountIDs() []string {
	ids := []string{}
	for _, g := range x.graphs {
		for _, v := range g.Vertices {
			if v.Exec == nil {
				continue
			}
			for _, m := range v.Exec.GetMounts() {
				if m.GetMountType() == pb.MountType_CACHE {
					ids = append(ids, mountName(m.GetCacheOpt().GetID()))
				}
			}
		}
	}
	return ids
}

// packMount packs a cache mount. It holds the lease, so that no step can use the mount
// meanwhile. It first computes the digest, and compresses the mount only if it differs
// from the version in the cache.
func (x *cacheExport) packMount(ctx context.Context, m cachemount.Mount, old remotecache.Mount) (_ remotecache.Mount, err error) {
	lease, err := x.caches.Hold(ctx, m)
	if errors.Is(err, fs.ErrNotExist) {
		return old, errors.New("it was removed")
	}
	if err != nil {
		return old, err
	}
	defer func() { err = errors.Join(err, lease.Release()) }()
	done := x.step.begin("packing cache mount " + mountName(m.ID))
	defer func() { done(err) }()
	if old.DiffID != "" {
		plain := &counted{w: io.Discard, hash: digest.Canonical.Digester()}
		if _, err := cachemount.Pack(ctx, lease.Dir, plain, x.deps.Owners); err != nil {
			return old, err
		}
		if plain.hash.Digest() == old.DiffID {
			return old, nil
		}
	}
	return x.compressMount(ctx, m, lease.Dir)
}

// errMountTooLarge is returned if a cache mount exceeds max-size. The limit keeps an
// export from filling the disk with a copy of the cache mount.
var errMountTooLarge = errors.New("it is larger than max-size allows the whole cache to be")

func (x *cacheExport) compressMount(ctx context.Context, m cachemount.Mount, dir string) (out remotecache.Mount, err error) {
	tmp, err := os.CreateTemp(x.work.Dir, "mount-")
	if err != nil {
		return out, fmt.Errorf("make temporary file: %w", err)
	}
	defer func() {
		if err = errors.Join(err, tmp.Close()); err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	blob := &counted{w: tmp, hash: digest.Canonical.Digester(), limit: x.target.maxSize}
	zw, err := zstd.NewWriter(blob)
	if err != nil {
		return out, err
	}
	plain := &counted{w: zw, hash: digest.Canonical.Digester()}
	left, err := cachemount.Pack(ctx, dir, plain, x.deps.Owners)
	if err := errors.Join(err, zw.Close()); err != nil {
		if errors.Is(err, errMountTooLarge) {
			return out, errMountTooLarge
		}
		return out, err
	}
	if left > 0 {
		x.deps.Logger.Warn("files of a cache mount are not exported: devices, sockets, FIFOs, programs with set-id bits or capabilities",
			"id", m.ID, "files", left)
	}
	out = remotecache.Mount{
		ID: m.ID, DiffID: plain.hash.Digest(), Size: plain.n,
		Blob: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Digest: blob.hash.Digest(), Size: blob.n},
	}
	x.blobs.addFile(out.Blob, tmp.Name())
	return out, nil
}

// counted is a writer that computes the digest and the size of its stream.
type counted struct {
	w    io.Writer
	hash digest.Digester
	n    int64
	// limit is the maximum size in bytes, 0 for no limit.
	limit int64
}

// Write implements io.Writer.
func (c *counted) Write(p []byte) (int, error) {
	if c.limit > 0 && c.n+int64(len(p)) > c.limit {
		return 0, errMountTooLarge
	}
	n, err := c.w.Write(p)
	c.hash.Hash().Write(p[:n])
	c.n += int64(n)
	return n, err
}
