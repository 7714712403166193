package frontend

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/platforms"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestSpellings(t *testing.T) {
	const (
		complete = "docker.io/library/busybox:latest"
		bare     = "busybox:latest"
	)
	tests := map[string]struct {
		dockerfile string
		args       map[string]string
		opts       map[string]string
		changed    string
		want       []string
	}{
		"bare":                {dockerfile: "FROM busybox\n", want: []string{bare}},
		"bare with its tag":   {dockerfile: "FROM busybox:latest\n", want: []string{bare}},
		"with its user":       {dockerfile: "FROM library/busybox\n", want: []string{bare}},
		"complete":            {dockerfile: "FROM docker.io/library/busybox\n", want: []string{complete}},
		"without its user":    {dockerfile: "FROM docker.io/busybox\n", want: []string{complete}},
		"not named":           {dockerfile: "FROM debian\n", want: []string{complete}},
		"COPY --from":         {dockerfile: "FROM scratch\nCOPY --from=busybox /a /b\n", want: []string{bare}},
		"--mount=from":        {dockerfile: "FROM scratch\nRUN --mount=target=/x,from=busybox ls\n", want: []string{bare}},
		"argument":            {dockerfile: "ARG X=busybox\nFROM ${X}\n", want: []string{bare}},
		"argument of another": {dockerfile: "ARG R=\nARG X=${R:-docker.io/library/}busybox\nFROM $X\n", want: []string{complete}},
		"build argument":      {dockerfile: "ARG X=docker.io/library/busybox\nFROM $X\n", args: map[string]string{"X": "busybox"}, want: []string{bare}},
		"stage":               {dockerfile: "FROM docker.io/library/busybox AS busybox\nFROM busybox\nCOPY --from=BusyBox /a /b\n", want: []string{complete}},
		"stage of that name":  {dockerfile: "FROM busybox AS busybox\nFROM debian\n", want: []string{bare}},
		"stage by number":     {dockerfile: "FROM busybox\nFROM debian\nCOPY --from=0 /a /b\n", want: []string{bare}},
		"trigger":             {dockerfile: "FROM debian\nONBUILD COPY --from=busybox /a /b\n", want: []string{bare}},
		"trigger beside":      {dockerfile: "FROM docker.io/library/busybox\nONBUILD COPY --from=busybox /a /b\n", want: []string{bare, complete}},
		"both": {
			dockerfile: "FROM busybox AS a\nFROM docker.io/library/busybox\nCOPY --from=busybox /busybox /b\n",
			changed:    "FROM localhost/busybox:latest AS a\nFROM docker.io/library/busybox\nCOPY --from=localhost/busybox:latest /busybox /b\n",
			want:       []string{complete},
		},
		"both by an argument": {
			dockerfile: "ARG B=busybox\nFROM --platform=linux/amd64 \\\n  $B\nFROM docker.io/busybox\n",
			changed:    "ARG B=busybox\nFROM --platform=linux/amd64 \\\n  localhost/busybox:latest\nFROM docker.io/busybox\n",
			want:       []string{complete},
		},
		"both in mounts": {
			dockerfile: "FROM docker.io/busybox\nRUN --mount=type=bind,from=busybox,target=/a --mount=from=busybox,target=/b <<E\n--mount=from=busybox\nE\n",
			changed:    "FROM docker.io/busybox\nRUN --mount=type=bind,from=localhost/busybox:latest,target=/a --mount=from=localhost/busybox:latest,target=/b <<E\n--mount=from=busybox\nE\n",
			want:       []string{complete},
		},
		"both and the local one": {
			dockerfile: "FROM busybox AS a\nFROM docker.io/busybox AS b\nFROM localhost/busybox\n",
			changed:    "FROM localhost:0/busybox:latest AS a\nFROM docker.io/busybox AS b\nFROM localhost/busybox\n",
			want:       []string{complete},
		},
		"both of a context": {
			dockerfile: "FROM busybox AS a\nFROM docker.io/busybox\n",
			opts:       map[string]string{"context:busybox": "local:x"},
			want:       []string{bare},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := &Inputs{opts: test.opts, buildArgs: test.args, platform: platforms.MustParse("linux/amd64")}
			s := newSpellings(in)
			changed := string(s.read([]byte(test.dockerfile)))
			if test.changed == "" {
				test.changed = test.dockerfile
			}
			if diff := cmp.Diff(test.changed, changed); diff != "" {
				t.Errorf("Dockerfile (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.want, s.spelled(complete, "")); diff != "" {
				t.Errorf("spelled (-want +got):\n%s", diff)
			}
			for _, mark := range []string{"localhost/busybox:latest", "localhost:0/busybox:latest"} {
				if !strings.Contains(changed, mark) {
					continue
				}
				if got := s.spelled(mark, ""); !slices.Equal(got, []string{bare}) || s.original(mark) != complete {
					t.Errorf("%s stands for %q, originally %s", mark, got, s.original(mark))
				}
			}
		})
	}
}

func TestSpellingOfContexts(t *testing.T) {
	s := newSpellings(&Inputs{})
	const complete = "docker.io/library/busybox:latest"
	for given, want := range map[string]string{"busybox": "busybox:latest", "docker.io/library/busybox": complete} {
		got := s.spelled(complete, "[context x] load metadata for "+given)
		if !slices.Equal(got, []string{want}) {
			t.Errorf("context docker-image://%s: %q", given, got)
		}
	}
}

// askedImages records the names that it is asked for. A name without a registry refers to
// another image.
type askedImages struct {
	mu    sync.Mutex
	asked []string
}

func (f *askedImages) Resolve(_ context.Context, ref string, _ *ocispec.Platform, _ bool) (string, digest.Digest, []byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, ref)
	if !HasRegistry(ref) {
		ref = "localhost/" + ref
	}
	dgst := digest.FromString(ref)
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + dgst.String() + `"]},"history":[{}]}`
	if strings.Contains(ref, "trigger") {
		config = `{"architecture":"amd64","os":"linux","config":{"OnBuild":["COPY --from=busybox /a /b"]},"rootfs":{"type":"layers","diff_ids":["` + dgst.String() + `"]},"history":[{}]}`
	}
	return ref + "@" + dgst.String(), dgst, []byte(config), nil
}

func buildSpelled(t *testing.T, dockerfile string) ([]string, error) {
	t.Helper()
	skipUpstreamRace(t, []byte(dockerfile))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := Open(t.Context(), Options{Context: dir, BuildPlatform: &amd64})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	images := &askedImages{}
	_, err = Build(t.Context(), in, Services{Images: images})
	slices.Sort(images.asked)
	return images.asked, err
}

func TestBothSpellingsAreAskedFor(t *testing.T) {
	asked, err := buildSpelled(t, "FROM busybox AS a\nFROM docker.io/library/busybox\nCOPY --from=a /a /b\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"busybox:latest", "docker.io/library/busybox:latest"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

func TestTriggerSpelledOtherwise(t *testing.T) {
	asked, err := buildSpelled(t, "FROM docker.io/library/busybox AS a\nFROM example.com/trigger\nCOPY --from=a /a /b\n")
	if err != nil {
		if !strings.Contains(err.Error(), "image busybox:latest is localhost/busybox:latest") {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("a trigger got the image of another name: asked for %q", asked)
}
