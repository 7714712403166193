package registry

import (
	"reflect"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/pkg/blobinfocache"
	"go.podman.io/image/v5/types"
)

// locations knows in which repositories of which registries a blob is, so that it
// can be mounted from there. It is shared with podman, buildah and skopeo.
type locations struct{ types.BlobInfoCache }

// opened is a cache that is kept open: one that is opened for every question waits
// for itself when several are asked at once.
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

// compressed records how a blob is compressed: what is not known to be of some
// compression is never mounted. The library's interface for it is internal
// (go.podman.io/image/v5 v5.41.2, internal/blobinfocache.BlobInfoCache2); where it
// is not as expected, blobs are sent instead of mounted.
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
