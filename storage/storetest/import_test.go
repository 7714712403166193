package storetest_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/storetest"
)

func TestImportLayer(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	base := create(t, s, "", file("a", "1"))
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	if err := w.WriteHeader(&tar.Header{Name: "b", Mode: 0o644, Size: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("2")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := digest.FromBytes(data.Bytes())

	for name, dgst := range map[string]digest.Digest{
		"another digest": digest.FromString("other"),
		"no digest":      "sha256:../../x",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.ImportLayer(t.Context(), base.ID, dgst, bytes.NewReader(data.Bytes()))
			if err == nil || dgst.Validate() == nil && !errors.Is(err, storage.ErrCorruptLayer) {
				t.Errorf("error %v, want a refusal", err)
			}
			if n := count(t, s); n != 1 {
				t.Errorf("%d layers are there, want the base alone", n)
			}
			checkNothingStaged(t, s)
		})
	}

	l, err := s.ImportLayer(t.Context(), base.ID, want, bytes.NewReader(data.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if l.DiffID != want || l.Parent != base.ID {
		t.Errorf("layer %+v, want %s on %s", l, want, base.ID)
	}
	content, err := os.ReadFile(filepath.Join(s.GraphRoot(), "overlay", l.ID, "diff", "b"))
	if err != nil || string(content) != "2" {
		t.Errorf("content %q, %v", content, err)
	}
	again, err := s.ImportLayer(t.Context(), base.ID, want, nil)
	if err != nil || again.ID != l.ID {
		t.Errorf("imported again: %s, %v, want %s unread", again.ID, err, l.ID)
	}
}
