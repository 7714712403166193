package registry

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestInstead(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"first", "second"} {
		if err := os.WriteFile(path(name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	forbidden := &fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission}
	for name, tt := range map[string]struct {
		opened error
		others []string
		want   string
	}{
		"readable":            {nil, []string{path("first")}, ""},
		"not there":           {fs.ErrNotExist, []string{path("first")}, ""},
		"both there":          {forbidden, []string{path("first"), path("second")}, path("first")},
		"second there":        {forbidden, []string{path("none"), path("second")}, path("second")},
		"neither of them":     {forbidden, []string{path("none"), path("none2")}, path("none")},
		"nothing to be asked": {fs.ErrNotExist, nil, ""},
	} {
		if got := instead(tt.opened, tt.others...); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
