package blobs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"time"
)

// clampTimes returns the layer r, in which no file has a time later than epoch.
func clampTimes(r io.Reader, epoch time.Time) io.ReadCloser {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(copyClamped(pw, r, epoch)) }()
	return pr
}

func copyClamped(w io.Writer, r io.Reader, epoch time.Time) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("rewrite timestamps: %w", err)
		}
		for _, t := range []*time.Time{&h.ModTime, &h.AccessTime, &h.ChangeTime} {
			if t.After(epoch) {
				*t = epoch
			}
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("rewrite timestamps: %w", err)
		}
		if _, err := io.Copy(tw, tr); err != nil { //nolint:gosec // nothing is decompressed
			return fmt.Errorf("rewrite timestamps: %w", err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("rewrite timestamps: %w", err)
	}
	// Read the padding, because the source checks its digest only after it.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("rewrite timestamps: %w", err)
	}
	return nil
}
