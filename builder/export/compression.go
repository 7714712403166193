package export

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The compression types of -o compression=.
const (
	Gzip         = "gzip"
	Zstd         = "zstd"
	Uncompressed = "uncompressed"
)

// Compression is how layers are compressed; the zero value is gzip at its
// default level.
type Compression struct {
	Type string
	// Level is the library's own scale, nil for its default.
	Level *int
}

// ParseCompression reads the attributes compression and compression-level.
func ParseCompression(attrs map[string]string) (Compression, error) {
	c := Compression{Type: attrs["compression"]}
	switch c.Type {
	case "":
		c.Type = Gzip
	case Gzip, Zstd, Uncompressed:
	default:
		return c, fmt.Errorf("compression %q is not known: use gzip, zstd or uncompressed", c.Type)
	}
	if text, ok := attrs["compression-level"]; ok {
		level, err := strconv.Atoi(text)
		if err != nil {
			return c, fmt.Errorf("compression-level %q is not a number", text)
		}
		c.Level = &level
	}
	return c, nil
}

func (c Compression) mediaType(docker bool) string {
	switch {
	case docker && c.Type == Uncompressed:
		return "application/vnd.docker.image.rootfs.diff.tar"
	case docker && c.Type == Zstd:
		return "application/vnd.docker.image.rootfs.diff.tar.zstd"
	case docker:
		return "application/vnd.docker.image.rootfs.diff.tar.gzip"
	case c.Type == Uncompressed:
		return ocispec.MediaTypeImageLayer
	case c.Type == Zstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayerGzip
}

func (c Compression) compress(w io.Writer, r io.Reader) error {
	zw, err := c.writer(w)
	if err != nil {
		return err
	}
	_, err = io.Copy(zw, r)
	if err := errors.Join(err, zw.Close()); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	return nil
}

func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	if c.Type == Zstd {
		level := zstd.SpeedDefault
		if c.Level != nil {
			level = zstd.EncoderLevelFromZstd(*c.Level)
		}
		zw, err := zstd.NewWriter(w, zstd.WithEncoderLevel(level))
		if err != nil {
			return nil, fmt.Errorf("compress with zstd: %w", err)
		}
		return zw, nil
	}
	level := pgzip.DefaultCompression
	if c.Level != nil {
		level = *c.Level
	}
	zw, err := pgzip.NewWriterLevel(w, level)
	if err != nil {
		return nil, fmt.Errorf("compress with gzip: %w", err)
	}
	return zw, nil
}
