package export

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The compression types of -o compression=.
const (
	Gzip         = "gzip"
	EStargz      = "estargz"
	Zstd         = "zstd"
	Uncompressed = "uncompressed"
)

// Compression is how layers are compressed; the zero value is gzip at its
// default level.
type Compression struct {
	Type string
	// Level is the library's own scale, nil for its default.
	Level *int
	// Force compresses layers of the base image again that have a form of
	// their own already.
	Force bool
}

// ParseCompression is what the attributes of a cache export say.
func ParseCompression(attrs map[string]string) (Compression, error) {
	c, err := parseCompression(attrs)
	if err == nil {
		err = c.checkLevel()
	}
	return c, err
}

// parseCompression reads the attributes compression, compression-level and
// force-compression.
func parseCompression(attrs map[string]string) (Compression, error) {
	c := Compression{Type: Gzip}
	if t, ok := attrs["compression"]; ok {
		c.Type = t
	}
	switch c.Type {
	case Gzip, EStargz, Zstd, Uncompressed:
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

// checkLevel refuses levels that the library does not have. Those of zstd are
// mapped to its few.
func (c Compression) checkLevel() error {
	if c.Level == nil || c.Type == Zstd || c.Type == Uncompressed {
		return nil
	}
	if *c.Level < pgzip.HuffmanOnly || *c.Level > pgzip.BestCompression {
		return fmt.Errorf("compression-level %d is not one of %s: use %d to %d", *c.Level, c.Type, pgzip.NoCompression, pgzip.BestCompression)
	}
	return nil
}

// parseBool reads a boolean attribute; one without a value is true.
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

// The media types of docker's layers (distribution,
// docs/content/spec/manifest-v2-2.md).
const (
	mediaTypeLayer2     = "application/vnd.docker.image.rootfs.diff.tar"
	mediaTypeLayer2Gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	mediaTypeLayer2Zstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"
)

func (c Compression) mediaType() string {
	switch c.Type {
	case Uncompressed:
		return ocispec.MediaTypeImageLayer
	case Zstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayerGzip
}

// dockerLayerTypes are docker's names for OCI's.
var dockerLayerTypes = map[string]string{
	ocispec.MediaTypeImageLayer:     mediaTypeLayer2,
	ocispec.MediaTypeImageLayerGzip: mediaTypeLayer2Gzip,
	ocispec.MediaTypeImageLayerZstd: mediaTypeLayer2Zstd,
}

// compress writes r compressed to w. Only eStargz has annotations.
func (c Compression) compress(w io.Writer, r io.Reader) (map[string]string, error) {
	if c.Type == EStargz {
		return c.estargz(w, r)
	}
	zw, err := c.writer(w)
	if err != nil {
		return nil, err
	}
	// Not by ReadFrom: zstd's frames come out otherwise, and not as BuildKit's.
	_, err = io.Copy(struct{ io.Writer }{zw}, r)
	if err := errors.Join(err, zw.Close()); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return nil, nil //nolint:nilnil // no annotations are a value here
}

func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	switch c.Type {
	case Uncompressed:
		return nopCloser{w}, nil
	case Zstd:
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
	zw, err := pgzip.NewWriterLevel(w, c.gzipLevel())
	if err != nil {
		return nil, fmt.Errorf("compress with gzip: %w", err)
	}
	return zw, nil
}

func (c Compression) gzipLevel() int {
	if c.Level != nil {
		return *c.Level
	}
	return pgzip.DefaultCompression
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// summed is what is known of a stream when it has been written.
type summed struct {
	w    io.Writer
	hash digest.Digester
	n    int64
}

func newSummed(w io.Writer) *summed { return &summed{w: w, hash: digest.Canonical.Digester()} }

// Write implements io.Writer.
func (s *summed) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.hash.Hash().Write(p[:n])
	s.n += int64(n)
	return n, err
}
