package storetest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/storetest"
)

func TestRemoved(t *testing.T) {
	tests := []struct {
		name string
		// remove does the work of another program while a layer is made on base.
		remove func(s *storage.Store, base string, st storage.Staging) error
		want   string
	}{
		{"nothing", func(*storage.Store, string, storage.Staging) error { return nil }, ""},
		{"the layer below", func(_ *storage.Store, base string, _ storage.Staging) error {
			return os.RemoveAll(filepath.Dir(base))
		}, "overlay/"},
		{"the layer that is made", func(_ *storage.Store, _ string, st storage.Staging) error {
			return os.RemoveAll(filepath.Dir(st.Upper))
		}, "shale/staging/"},
		{"all layers", func(s *storage.Store, _ string, _ storage.Staging) error {
			return os.RemoveAll(filepath.Join(s.GraphRoot(), "overlay"))
		}, "the store "},
		{"all layers with another store there", func(s *storage.Store, _ string, _ storage.Staging) error {
			dir := filepath.Join(s.GraphRoot(), "overlay")
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700))
		}, "the store "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := storetest.Open(t, storetest.NewRoots(t))
			base := create(t, s, "", file("a", "1"))
			dir, err := s.LayerDir(base.ID)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.CreateLayer(t.Context(), base.ID, func(_ context.Context, st storage.Staging) (storage.Diff, error) {
				return storage.Diff{}, errors.Join(errors.New("step failed"), test.remove(s, dir, st))
			})
			if err == nil || !strings.HasPrefix(err.Error(), "step failed") {
				t.Errorf("error = %v", err)
			}
			err = s.Removed([]string{dir})
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (!errors.Is(err, storage.ErrRemoved) || !strings.HasPrefix(err.Error(), test.want)):
				t.Errorf("error = %v, want one that begins with %q", err, test.want)
			}
		})
	}
}
