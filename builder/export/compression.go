package export

import (
	"fmt"
	"strconv"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage/blobs"
)

// Compression is the compression of layers, as in -o compression=. The zero value is gzip
// at its default level.
type Compression struct {
	blobs.Form
	// Force also compresses those layers of the base image again that were published in
	// another form.
	Force bool
}

// ParseCompression returns the compression in the attributes of a cache export. The error
// reports an unknown compression, an invalid attribute or a level that the library does
// not support.
func ParseCompression(attrs map[string]string) (Compression, error) {
	c, err := parseCompression(attrs)
	if err == nil {
		err = c.Check()
	}
	return c, err
}

// parseCompression reads the attributes compression, compression-level and
// force-compression.
func parseCompression(attrs map[string]string) (Compression, error) {
	c := Compression{Form: blobs.Form{Type: blobs.Gzip}}
	if t, ok := attrs["compression"]; ok {
		c.Type = t
	}
	switch c.Type {
	case blobs.Gzip, blobs.EStargz, blobs.Zstd, blobs.Uncompressed:
	default:
		return c, fmt.Errorf("unsupported compression type %s", c.Type)
	}
	if text, ok := attrs["compression-level"]; ok {
		level, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return c, fmt.Errorf("non-integer value %s specified for compression-level: %w", text, err)
		}
		n := int(level)
		c.Level = &n
	}
	err := parseBool(attrs, "force-compression", &c.Force)
	return c, err
}

// parseBool reads a boolean attribute. An attribute without a value is true.
func parseBool(attrs map[string]string, name string, dest *bool) error {
	text, ok := attrs[name]
	if !ok {
		return nil
	}
	if text == "" {
		*dest = true
		return nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return fmt.Errorf("non-bool value specified for %s: %w", name, err)
	}
	*dest = v
	return nil
}

// Media types of docker's layers (distribution, docs/content/spec/manifest-v2-2.md).
const (
	mediaTypeLayer2     = "application/vnd.docker.image.rootfs.diff.tar"
	mediaTypeLayer2Gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	mediaTypeLayer2Zstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"
)

// dockerLayerTypes maps OCI's media types of layers to those of docker.
var dockerLayerTypes = map[string]string{
	ocispec.MediaTypeImageLayer:     mediaTypeLayer2,
	ocispec.MediaTypeImageLayerGzip: mediaTypeLayer2Gzip,
	ocispec.MediaTypeImageLayerZstd: mediaTypeLayer2Zstd,
}
