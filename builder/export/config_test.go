package export

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
)

var (
	early = time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	ran   = early.Add(time.Hour)
)

func layer(name string, at time.Time) storage.Layer {
	return storage.Layer{ID: name, DiffID: digest.FromString(name), Size: 10, Created: at}
}

const frontConfig = `{"architecture":"amd64","os":"linux","variant":"v9","os.features":["x"],"unheard.of":{"a":[1]},
	"config":{"Env":["A=1"],"OnBuild":["RUN x"]},"rootfs":{"type":"layers","diff_ids":null},
	"history":[{"created":"2020-01-02T03:04:05Z","created_by":"base"},{"created_by":"ENV A=1","empty_layer":true},
		{"created_by":"RUN y"},{"created_by":"CMD","empty_layer":true}]}`

func TestFinishConfig(t *testing.T) {
	baseConfig := `{"history":[{"created":"2020-01-02T03:04:05Z","created_by":"base"}]}`
	epoch := time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		name  string
		epoch *time.Time
		times []string // of the history entries
	}{
		{
			name:  "times of the layers",
			times: []string{"2020-01-02T03:04:05Z", "2020-01-02T04:04:05Z", "2020-01-02T04:04:05Z", "2020-01-02T04:04:05Z"},
		},
		{
			name: "epoch before the base, whose history stays", epoch: &epoch,
			times: []string{"2020-01-02T03:04:05Z", "2019-01-01T00:00:00Z", "2019-01-01T00:00:00Z", "2019-01-01T00:00:00Z"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := Platform{
				Config: []byte(frontConfig), BaseConfig: []byte(baseConfig),
				Layers: []storage.Layer{layer("base", early), layer("run", ran)},
			}
			ids := []digest.Digest{digest.FromString("base"), digest.FromString("run")}
			out, err := finishConfig(p, ids, test.epoch)
			if err != nil {
				t.Fatal(err)
			}
			got := unmarshal[map[string]any](t, out)
			want := map[string]any{
				"architecture": "amd64", "os": "linux", "variant": "v9", "os.features": []any{"x"},
				"unheard.of": map[string]any{"a": []any{1.0}},
				"config":     map[string]any{"Env": []any{"A=1"}, "OnBuild": []any{"RUN x"}},
				"created":    test.times[3],
				"rootfs":     map[string]any{"type": "layers", "diff_ids": []any{ids[0].String(), ids[1].String()}},
				"history": []any{
					map[string]any{"created": test.times[0], "created_by": "base"},
					map[string]any{"created": test.times[1], "created_by": "ENV A=1", "empty_layer": true},
					map[string]any{"created": test.times[2], "created_by": "RUN y"},
					map[string]any{"created": test.times[3], "created_by": "CMD", "empty_layer": true},
				},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFinishConfigKeepsAnEarlierTime(t *testing.T) {
	epoch := early.Add(time.Hour)
	for created, want := range map[string]string{
		"2020-01-02T03:04:05Z": "2020-01-02T03:04:05Z", "2021-01-01T00:00:00Z": "2020-01-02T04:04:05Z",
	} {
		p := Platform{Config: []byte(`{"os":"linux","architecture":"arm","created":"` + created + `"}`)}
		out, err := finishConfig(p, nil, &epoch)
		if err != nil {
			t.Fatal(err)
		}
		if got := unmarshal[map[string]any](t, out)["created"]; got != want {
			t.Errorf("%s became %v, want %s", created, got, want)
		}
	}
	if _, err := finishConfig(Platform{Config: []byte(`{"os":"linux"}`)}, nil, nil); err == nil {
		t.Error("a config without an architecture was accepted")
	}
}

func TestFinishHistory(t *testing.T) {
	layers := []storage.Layer{layer("a", early), layer("b", ran)}
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
			for _, h := range finishHistory(test.history, layers, nil) {
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

func unmarshal[T any](t *testing.T, data []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return v
}
