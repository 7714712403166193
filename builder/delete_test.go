package builder

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shale-build/shale/builder/export"
)

func TestCheckDelete(t *testing.T) {
	work, other := t.TempDir(), t.TempDir()
	t.Chdir(work)
	if err := os.Mkdir("dir", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, "link"); err != nil {
		t.Fatal(err)
	}
	for dest, ok := range map[string]bool{
		"dir": true, "new/deep": true, filepath.Join(work, "dir"): true,
		".": false, "..": false, "dir/..": false, other: false, "link": false, "link/new": false, "/": false,
	} {
		outs := []output{{Export: Export{Type: "local", Dest: dest}, files: export.FilesOptions{Delete: true}}}
		if err := checkDelete(outs, false); (err == nil) != ok {
			t.Errorf("%s: %v", dest, err)
		}
		if err := checkDelete(outs, true); err != nil {
			t.Errorf("%s, allowed: %v", dest, err)
		}
	}
}
