package export

import (
	"fmt"
	"io"
	"strconv"

	"github.com/containerd/stargz-snapshotter/estargz"
)

// estargz compresses r so that its files can be fetched one by one. The
// uncompressed form of the result is not r but begins with it: what is unpacked
// without its table of contents is r to the bit.
func (c Compression) estargz(w io.Writer, r io.Reader) (map[string]string, error) {
	zw := estargz.NewWriterLevel(w, c.gzipLevel())
	if err := zw.AppendTarLossLess(r); err != nil {
		return nil, fmt.Errorf("compress with estargz: %w", err)
	}
	toc, err := zw.Close()
	if err != nil {
		return nil, fmt.Errorf("compress with estargz: %w", err)
	}
	return map[string]string{estargz.TOCJSONDigestAnnotation: toc.String()}, nil
}

// estargzSize adds the size of the uncompressed form, which is only known when
// it has been read back.
func estargzSize(annotations map[string]string, size int64) {
	annotations[estargz.StoreUncompressedSizeAnnotation] = strconv.FormatInt(size, 10)
}
