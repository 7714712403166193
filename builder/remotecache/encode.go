package remotecache

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/cache"
)

// ConfigMediaType is the media type of the config of a cache's manifest.
const ConfigMediaType = "application/vnd.shale.cacheconfig.v1+json"

// inlineKey is the field of an image's config that contains the records.
const inlineKey = "shale.cache.v1"

// none is used instead of the number of a layer if there is no layer.
const none = -1

// Limits of the data to be read.
const (
	maxLayers  = 100_000
	maxRecords = 1_000_000
)

// config is the content of a cache's config. The number of a layer is its index in
// Layers. It is larger than that of its parent.
type config struct {
	Layers  []configLayer  `json:"layers"`
	Records []configRecord `json:"records"`
	Mounts  []configMount  `json:"mounts,omitempty"`
}

type configLayer struct {
	DiffID digest.Digest `json:"diffID"`
	Blob   digest.Digest `json:"blob"`
	Parent int           `json:"parent"`
	// Created is missing in the output of old versions.
	Created time.Time `json:"created,omitzero"`
}

type configRecord struct {
	Key         cache.Key `json:"key"`
	Layer       int       `json:"layer"`
	Created     time.Time `json:"created"`
	Used        time.Time `json:"used,omitzero"`
	Description string    `json:"description,omitempty"`
}

// Encode returns the manifest and the config of c. Equal caches give equal bytes.
func (c *Cache) Encode() (manifest, configData []byte, err error) {
	var cfg config
	number := map[digest.Digest]int{"": none}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Layers:    []ocispec.Descriptor{},
	}
	listed := map[digest.Digest]bool{}
	for i, chain := range c.order() {
		l := c.layers[chain]
		number[chain] = i
		cfg.Layers = append(cfg.Layers, configLayer{
			DiffID: l.DiffID, Blob: l.Blob.Digest, Parent: number[l.Parent], Created: l.Created.UTC(),
		})
		if !listed[l.Blob.Digest] {
			listed[l.Blob.Digest] = true
			m.Layers = append(m.Layers, l.Blob)
		}
	}
	cfg.Records = c.encodeRecords(number)
	for _, key := range slices.Sorted(maps.Keys(c.mounts)) {
		mount := c.mounts[key]
		cfg.Mounts = append(cfg.Mounts, configMount{
			Key: key, ID: mount.ID, DiffID: mount.DiffID, Size: mount.Size, Blob: mount.Blob.Digest, Used: mount.Used.UTC(),
		})
		if !listed[mount.Blob.Digest] {
			listed[mount.Blob.Digest] = true
			m.Layers = append(m.Layers, mount.Blob)
		}
	}
	if configData, err = json.Marshal(cfg); err != nil {
		return nil, nil, fmt.Errorf("write cache config: %w", err)
	}
	m.Config = ocispec.Descriptor{
		MediaType: ConfigMediaType, Digest: digest.FromBytes(configData), Size: int64(len(configData)),
	}
	if manifest, err = json.Marshal(m); err != nil {
		return nil, nil, fmt.Errorf("write cache manifest: %w", err)
	}
	return manifest, configData, nil
}

func (c *Cache) encodeRecords(number map[digest.Digest]int) []configRecord {
	records := []configRecord{}
	for _, key := range slices.Sorted(maps.Keys(c.records)) {
		r := c.records[key]
		records = append(records, configRecord{
			Key: key, Layer: number[r.Chain], Created: r.Created.UTC(), Used: r.Used.UTC(), Description: r.Description,
		})
	}
	return records
}

// Decode returns the cache in a manifest and its config. These are either a cache's own,
// or those of an image, which may contain records. An image without records gives an
// empty cache. Decode returns an error if the data is invalid or too large.
func Decode(manifest, configData []byte) (*Cache, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, fmt.Errorf("read cache manifest: %w", err)
	}
	cfg, err := decodeConfig(m, configData)
	if err != nil {
		return nil, fmt.Errorf("read cache config: %w", err)
	}
	if len(cfg.Layers) > maxLayers || len(cfg.Records) > maxRecords {
		return nil, fmt.Errorf("read cache config: %d layers and %d records are too many", len(cfg.Layers), len(cfg.Records))
	}
	return cfg.cache(m.Layers)
}

func decodeConfig(m ocispec.Manifest, data []byte) (config, error) {
	if m.Config.MediaType != ConfigMediaType {
		return decodeInline(m, data)
	}
	var cfg config
	return cfg, json.Unmarshal(data, &cfg)
}

// cache checks cfg against the blobs of the manifest.
func (cfg config) cache(blobs []ocispec.Descriptor) (*Cache, error) {
	known := map[digest.Digest]ocispec.Descriptor{}
	for _, b := range blobs {
		if err := b.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("blob %q: %w", b.Digest, err)
		}
		known[b.Digest] = b
	}
	c := &Cache{}
	chains := make([]digest.Digest, len(cfg.Layers))
	for i, l := range cfg.Layers {
		blob, ok := known[l.Blob]
		if !ok {
			return nil, fmt.Errorf("layer %d: its blob %q is not among the manifest's", i, l.Blob)
		}
		if err := l.DiffID.Validate(); err != nil {
			return nil, fmt.Errorf("layer %d: diffID: %w", i, err)
		}
		layer := Layer{DiffID: l.DiffID, Blob: blob, Created: l.Created}
		if l.Parent != none {
			if l.Parent < 0 || l.Parent >= i {
				return nil, fmt.Errorf("layer %d cannot have layer %d below it", i, l.Parent)
			}
			layer.Parent = chains[l.Parent]
		}
		var err error
		if chains[i], err = c.AddLayer(layer); err != nil {
			return nil, err
		}
	}
	for _, r := range cfg.Records {
		if err := r.Key.Validate(); err != nil {
			return nil, fmt.Errorf("record %q: %w", r.Key, err)
		}
		rec := Record{Created: r.Created, Used: r.Used, Description: r.Description}
		if r.Layer != none {
			if r.Layer < 0 || r.Layer >= len(chains) {
				return nil, fmt.Errorf("record %s: there is no layer %d", r.Key, r.Layer)
			}
			rec.Chain = chains[r.Layer]
		}
		if err := c.AddRecord(r.Key, rec); err != nil {
			return nil, err
		}
	}
	return c, c.addMounts(cfg.Mounts, known)
}

// inline contains the records inside an image. Their layers are those of the image.
type inline struct {
	Records []configRecord `json:"records"`
}

func decodeInline(m ocispec.Manifest, data []byte) (config, error) {
	var img struct {
		RootFS  ocispec.RootFS    `json:"rootfs"`
		History []ocispec.History `json:"history"`
		Inline  *inline           `json:"shale.cache.v1"`
	}
	if err := json.Unmarshal(data, &img); err != nil {
		return config{}, err
	}
	var cfg config
	if img.Inline == nil {
		return cfg, nil // an image without records
	}
	if len(img.RootFS.DiffIDs) != len(m.Layers) {
		return cfg, errors.New("the image's config and manifest do not name the same layers")
	}
	times := layerTimes(img.History)
	for i, id := range img.RootFS.DiffIDs {
		l := configLayer{DiffID: id, Blob: m.Layers[i].Digest, Parent: i - 1}
		if len(times) == len(m.Layers) {
			l.Created = times[i]
		}
		cfg.Layers = append(cfg.Layers, l)
	}
	cfg.Records = img.Inline.Records
	return cfg, nil
}

// layerTimes returns the times of the history entries that have a layer.
func layerTimes(history []ocispec.History) []time.Time {
	var times []time.Time
	for _, h := range history {
		if h.EmptyLayer {
			continue
		}
		at := time.Time{}
		if h.Created != nil {
			at = *h.Created
		}
		times = append(times, at)
	}
	return times
}

// Inline adds records of c to configData, the config of an image from the front end, and
// returns the result. It adds the records of the image's layers. diffIDs are these
// layers, from the base to the top. The added records have no time of last use. Otherwise
// each build would give another image.
func (c *Cache) Inline(configData []byte, diffIDs []digest.Digest) ([]byte, error) {
	number := map[digest.Digest]int{}
	var chain digest.Digest
	for i, id := range diffIDs {
		chain = chainOf(chain, id)
		number[chain] = i
	}
	in := inline{Records: []configRecord{}}
	for _, r := range c.encodeRecords(number) {
		if _, ok := number[c.records[r.Key].Chain]; ok {
			r.Used = time.Time{}
			in.Records = append(in.Records, r)
		}
	}
	// Unknown fields stay as they are.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(configData, &fields); err != nil {
		return nil, fmt.Errorf("read image config: %w", err)
	}
	var err error
	if fields[inlineKey], err = json.Marshal(in); err != nil {
		return nil, fmt.Errorf("write image config: %w", err)
	}
	return json.Marshal(fields)
}
