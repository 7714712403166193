package registry

import (
	"reflect"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/pkg/blobinfocache"
	"go.podman.io/image/v5/types"
)

// locations records which repositories of which registries have a blob, so that the blob
// can be mounted from there. podman, buildah and skopeo use the same records.
type locations struct{ types.BlobInfoCache }

// opened is a cache that can be kept open. Otherwise the cache is opened for each lookup,
// and simultaneous lookups in one process wait for each other.
type opened interface {
	Open()
	Close()
}

func openLocations(sys *types.SystemContext) locations {
	cache := blobinfocache.DefaultCache(sys)
	if c, ok := cache.(opened); ok {
		c.Open()
	}
	return locations{cache}
}

func (l locations) close() {
	if c, ok := l.BlobInfoCache.(opened); ok {
		c.Close()
	}
}

// compressed records how a blob is compressed, because blobs of unknown compression are
// never mounted. The library's interface for this is internal (go.podman.io/image/v5
// v5.41.2, internal/blobinfocache.BlobInfoCache2). If a version has another interface,
// blobs are uploaded instead of mounted.
func (l locations) compressed(blob digest.Digest, mediaType string) {
	kind := "uncompressed"
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		kind = "gzip"
	case strings.HasSuffix(mediaType, "zstd"):
		kind = "zstd"
	}
	record := reflect.ValueOf(l.BlobInfoCache).MethodByName("RecordDigestCompressorData")
	if !record.IsValid() || record.Type().NumIn() != 2 || record.Type().In(0) != reflect.TypeFor[digest.Digest]() || record.Type().In(1).Kind() != reflect.Struct {
		return
	}
	data := reflect.New(record.Type().In(1)).Elem()
	for name, value := range map[string]string{"BaseVariantCompressor": kind, "SpecificVariantCompressor": "unknown"} {
		field := data.FieldByName(name)
		if !field.IsValid() || field.Kind() != reflect.String {
			return
		}
		field.SetString(value)
	}
	record.Call([]reflect.Value{reflect.ValueOf(blob), data})
}
