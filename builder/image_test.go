package builder

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
)

func layer(name string, at time.Time) storage.Layer {
	return storage.Layer{ID: name, DiffID: digest.FromString(name), Size: 10, Created: at}
}

func TestFinishConfig(t *testing.T) {
	early := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	ran := early.Add(time.Hour)
	created := early.Add(2 * time.Hour)
	in := `{"architecture":"amd64","os":"linux","variant":"v9","config":{"Env":["A=1"],"OnBuild":["RUN x"]},
		"rootfs":{"type":"layers","diff_ids":null},
		"history":[{"created":"2020-01-02T03:04:05Z","created_by":"base"},{"created_by":"ENV A=1","empty_layer":true},{"created_by":"RUN y"}]}`
	out, err := finishConfig([]byte(in), []storage.Layer{layer("base", early), layer("run", ran)}, created)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"architecture": "amd64", "os": "linux", "variant": "v9",
		"config":  map[string]any{"Env": []any{"A=1"}, "OnBuild": []any{"RUN x"}},
		"created": "2020-01-02T05:04:05Z",
		"rootfs": map[string]any{"type": "layers", "diff_ids": []any{
			digest.FromString("base").String(), digest.FromString("run").String(),
		}},
		"history": []any{
			map[string]any{"created": "2020-01-02T03:04:05Z", "created_by": "base"},
			map[string]any{"created": "2020-01-02T05:04:05Z", "created_by": "ENV A=1", "empty_layer": true},
			map[string]any{"created": "2020-01-02T04:04:05Z", "created_by": "RUN y"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestFinishHistory(t *testing.T) {
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	layers := []storage.Layer{layer("a", at), layer("b", at)}
	tests := []struct {
		name    string
		history []ocispec.History
		empty   []bool
	}{
		{name: "none", history: nil, empty: []bool{false, false}},
		{name: "fewer than layers", history: []ocispec.History{{CreatedBy: "x"}}, empty: []bool{false, false}},
		{
			name:    "more than layers",
			history: []ocispec.History{{CreatedBy: "x"}, {CreatedBy: "y"}, {CreatedBy: "z"}},
			empty:   []bool{false, false, true},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var empty []bool
			for _, h := range finishHistory(test.history, layers, at) {
				empty = append(empty, h.EmptyLayer)
				if h.Created == nil {
					t.Error("an entry without a time")
				}
			}
			if diff := cmp.Diff(test.empty, empty); diff != "" {
				t.Errorf("empty layers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestManifestFor(t *testing.T) {
	layers := []storage.Layer{layer("a", time.Time{})}
	for _, docker := range []bool{false, true} {
		data, err := manifestFor([]byte("{}"), layers, docker, map[string]string{"k": "v"})
		if err != nil {
			t.Fatal(err)
		}
		var m ocispec.Manifest
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		types := []string{m.MediaType, m.Config.MediaType, m.Layers[0].MediaType}
		want := []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer}
		if docker {
			want = []string{
				"application/vnd.docker.distribution.manifest.v2+json",
				"application/vnd.docker.container.image.v1+json",
				"application/vnd.docker.image.rootfs.diff.tar",
			}
		}
		if diff := cmp.Diff(want, types); diff != "" {
			t.Errorf("docker=%v: media types (-want +got):\n%s", docker, diff)
		}
		if docker != (m.Annotations == nil) {
			t.Errorf("docker=%v: annotations are %v", docker, m.Annotations)
		}
		if m.Layers[0].Digest != layers[0].DiffID || m.Layers[0].Size != 10 || m.Config.Digest != digest.FromString("{}") {
			t.Errorf("docker=%v: descriptors are wrong: %s", docker, data)
		}
	}
}
