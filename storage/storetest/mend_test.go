package storetest_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/storetest"
)

// If a process is killed while the driver makes a layer's directory, the existing layers
// must keep their short names. podman and skopeo mount layers by these names.
func TestKilledInCreate(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, overlay, layer string){
		"before the link": func(*testing.T, string, string) {},
		"before the name": func(t *testing.T, overlay, layer string) {
			symlink(t, filepath.Join("..", layer, "diff"), filepath.Join(overlay, "l", "ABANDONED"))
		},
		"in the name": func(t *testing.T, overlay, layer string) {
			symlink(t, filepath.Join("..", layer, "diff"), filepath.Join(overlay, "l", "ABANDONED"))
			write(t, filepath.Join(overlay, layer, "link"), "")
		},
		"and another tool came first": func(t *testing.T, overlay, _ string) {
			if err := os.RemoveAll(filepath.Join(overlay, "l")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			roots := storetest.NewRoots(t)
			s := storetest.Open(t, roots)
			base := create(t, s, "", file("a", "1"))
			top := create(t, s, base.ID, file("b", "2"))
			const killed = "0123456789012345678901234567890123456789012345678901234567890123"
			overlay := filepath.Join(roots.Graph, "overlay")
			if err := os.MkdirAll(filepath.Join(overlay, killed, "diff"), 0o755); err != nil {
				t.Fatal(err)
			}
			leave(t, overlay, killed)
			recordIncomplete(t, roots, killed, top.ID)
			write(t, filepath.Join(roots.Graph, "shale", "pending", "layer-"+killed), "")

			// Another process does not have the layers in its memory.
			if err := storetest.Command(t, "next", roots.Graph, roots.Run, top.ID).Run(); err != nil {
				t.Fatal(err)
			}
			for _, l := range []storage.Layer{base, top} {
				checkShortName(t, overlay, l.ID)
			}
			if _, err := os.Lstat(filepath.Join(overlay, "l", "ABANDONED")); err == nil {
				t.Error("the short name of the killed layer stays for ever")
			}
			if _, err := os.Lstat(filepath.Join(overlay, killed)); err == nil {
				t.Error("the directory of the killed layer stays for ever")
			}
			if entries, err := os.ReadDir(filepath.Join(roots.Graph, "shale", "pending")); err != nil || len(entries) != 0 {
				t.Errorf("announcements = %v, %v, want none", entries, err)
			}
		})
	}
}

func checkShortName(t *testing.T, overlay, layer string) {
	t.Helper()
	name, err := os.ReadFile(filepath.Join(overlay, layer, "link"))
	if err != nil {
		t.Fatal(err)
	}
	target, err := os.Readlink(filepath.Join(overlay, "l", string(name)))
	if want := filepath.Join("..", layer, "diff"); err != nil || target != want {
		t.Errorf("short name of %s leads to %q, %v, want %q", layer, target, err, want)
	}
}

// recordIncomplete writes the record that the library writes before it makes a layer.
func recordIncomplete(t *testing.T, roots storetest.Roots, id, parent string) {
	t.Helper()
	path := filepath.Join(roots.Graph, "overlay-layers", "layers.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var layers []map[string]any
	if err := json.Unmarshal(data, &layers); err != nil {
		t.Fatal(err)
	}
	layers = append(layers, map[string]any{"id": id, "parent": parent, "flags": map[string]any{"incomplete": true}})
	if data, err = json.Marshal(layers); err != nil {
		t.Fatal(err)
	}
	write(t, path, string(data))
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
