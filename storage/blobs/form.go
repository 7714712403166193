package blobs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The compressions of a Form.
const (
	Gzip         = "gzip"
	EStargz      = "estargz"
	Zstd         = "zstd"
	Uncompressed = "uncompressed"
)

// Form is the compression of a layer. The zero value is gzip at its default level.
type Form struct {
	Type string
	// Level is a level of the compression library's own scale, nil for its default.
	Level *int
	// Family selects the zstd frames of podman, buildah and skopeo instead of BuildKit's.
	Family bool
}

// Check returns an error for a level that the compression library does not have. All
// levels are valid for zstd, because they are mapped to its few levels.
func (f Form) Check() error {
	if f.Level == nil || f.Type == Zstd || f.Type == Uncompressed {
		return nil
	}
	if *f.Level < pgzip.HuffmanOnly || *f.Level > pgzip.BestCompression {
		return fmt.Errorf("compression-level %d is not one of %s: use %d to %d", *f.Level, f.Type, pgzip.NoCompression, pgzip.BestCompression)
	}
	return nil
}

// MediaType returns the OCI media type of a layer in this form.
func (f Form) MediaType() string {
	switch f.Type {
	case Uncompressed:
		return ocispec.MediaTypeImageLayer
	case Zstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayerGzip
}

// id returns the same string for two forms only if they give the same bytes for the same
// layer. It contains the compression, the level and the versions of the compressors.
func (f Form) id() string {
	kind, level := f.Type, "default"
	if kind == "" {
		kind = Gzip
	}
	if f.Level != nil {
		level = fmt.Sprint(*f.Level)
	}
	if kind == Uncompressed {
		return kind
	}
	if kind == Zstd && f.Family {
		kind += "-family"
	}
	return kind + "/" + level + "/" + compressors()
}

// compressors returns the versions of the libraries that compress.
var compressors = sync.OnceValue(func() string {
	var parts []string
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		switch dep.Path {
		case "github.com/klauspost/compress", "github.com/klauspost/pgzip", "github.com/containerd/stargz-snapshotter/estargz":
			parts = append(parts, dep.Version)
		}
	}
	return strings.Join(parts, "+")
})

// compress writes r to w in compressed form. It returns annotations only for eStargz.
func (f Form) compress(w io.Writer, r io.Reader) (map[string]string, error) {
	if f.Type == EStargz {
		return f.estargz(w, r)
	}
	zw, err := f.writer(w)
	if err != nil {
		return nil, err
	}
	to, from := io.Writer(struct{ io.Writer }{zw}), io.Reader(struct{ io.Reader }{r})
	if f.Type == Zstd && f.Family {
		// ReadFrom divides a stream in another way than Write. The first bytes are a
		// block of their own, because podman, buildah and skopeo read them first to
		// detect the compression.
		head := make([]byte, familyHead)
		n, err := io.ReadFull(r, head)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errors.Join(err, zw.Close())
		}
		to, from = zw, io.MultiReader(bytes.NewReader(head[:n]), from)
	}
	_, err = io.CopyBuffer(to, from, make([]byte, copySize))
	if err := errors.Join(err, zw.Close()); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return nil, nil //nolint:nilnil // no annotations are a value here
}

// copySize is the size of the buffers between the steps from a layer to a blob.
const copySize = 256 << 10

// gzipBlock is the number of bytes that pgzip compresses at a time. It changes the
// resulting bytes; the number of blocks in progress, gzipBlocks, does not. A block takes
// about 3 MiB of memory.
const (
	gzipBlock  = 1 << 20
	gzipBlocks = 8
)

// familyHead is the number of bytes from which podman, buildah and skopeo detect a
// compression (go.podman.io/image/v5, DetectCompressionFormat).
const familyHead = 8

func (f Form) writer(w io.Writer) (io.WriteCloser, error) {
	switch f.Type {
	case Uncompressed:
		return nopCloser{w}, nil
	case Zstd:
		level := zstd.SpeedDefault
		if f.Level != nil {
			level = zstd.EncoderLevelFromZstd(*f.Level)
		}
		zw, err := zstd.NewWriter(w, zstd.WithEncoderLevel(level))
		if err != nil {
			return nil, fmt.Errorf("compress with zstd: %w", err)
		}
		return zw, nil
	}
	zw, err := pgzip.NewWriterLevel(w, f.gzipLevel())
	if err == nil {
		err = zw.SetConcurrency(gzipBlock, min(runtime.GOMAXPROCS(0), gzipBlocks))
	}
	if err != nil {
		return nil, fmt.Errorf("compress with gzip: %w", err)
	}
	return zw, nil
}

func (f Form) gzipLevel() int {
	if f.Level != nil {
		return *f.Level
	}
	return pgzip.DefaultCompression
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
