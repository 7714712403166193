package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/shale-build/shale/builder/llb"
)

var update = flag.Bool("update", false, "rewrite the golden sections of testdata")

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// fakeImages has a few images by familiar name and counts the requests for each.
type fakeImages struct {
	mu    sync.Mutex
	calls map[string]int
	pulls int
}

var fakeConfigs = map[string]string{
	"busybox":    `{"Env":["PATH=/bin","BASE=busybox"],"Cmd":["sh"]}`,
	"debian":     `{"Env":["PATH=/usr/bin:/bin"],"WorkingDir":"/root","User":"daemon"}`,
	"argtrigger": `{"OnBuild":["ARG FROM_IMAGE","RUN true"]}`,
	"commented":  `{"OnBuild":["# a remark\n# check=skip=all\nRUN true"]}`,
	"trigger":    `{"Env":["PATH=/bin"],"OnBuild":["COPY . /src","RUN make -C /src","COPY --from=busybox /bin/sh /sh"]}`,
}

func (f *fakeImages) Resolve(_ context.Context, ref string, p *ocispec.Platform, pull bool) (string, digest.Digest, []byte, error) {
	if !HasRegistry(ref) {
		ref = "docker.io/library/" + ref
	}
	name := strings.TrimSuffix(strings.TrimPrefix(ref, "docker.io/library/"), ":latest")
	f.mu.Lock()
	if f.calls == nil {
		f.calls = map[string]int{}
	}
	f.calls[name]++
	if pull {
		f.pulls++
	}
	f.mu.Unlock()
	config, ok := fakeConfigs[name]
	if !ok {
		return "", "", nil, fmt.Errorf("%s: not found", ref)
	}
	if p == nil {
		p = &amd64
	}
	img := fmt.Sprintf(`{"architecture":%q,"os":%q,"config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%064d"]},"history":[{"created_by":"base"}]}`,
		p.Architecture, p.OS, config, len(name))
	dgst := digest.FromString(ref)
	return ref + "@" + dgst.String(), dgst, []byte(img), nil
}

// fakeLayouts returns busybox's config for every layout.
type fakeLayouts struct{}

func (fakeLayouts) Resolve(ctx context.Context, _ string, dgst digest.Digest, p *ocispec.Platform) (digest.Digest, []byte, error) {
	_, _, config, err := (&fakeImages{}).Resolve(ctx, "busybox", p, false)
	return dgst, config, err
}

// readCase reads a test case: the options are in the comment of the archive, the context
// is below "context/", and the expected results are in "want" files.
func readCase(t *testing.T, path string) (*txtar.Archive, Options) {
	t.Helper()
	ar, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range ar.Files {
		if strings.HasPrefix(f.Name, "want") {
			continue
		}
		dest := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dest, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Context: filepath.Join(dir, "context"), BuildPlatform: &amd64, Platforms: []ocispec.Platform{amd64}, TempDir: t.TempDir()}
	if err := os.MkdirAll(o.Context, 0o755); err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(ar.Comment), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := setOption(&o, dir, line); err != nil {
			t.Fatalf("%s: %q: %v", path, line, err)
		}
	}
	return ar, o
}

func setOption(o *Options, dir, line string) error {
	key, value, _ := strings.Cut(line, " ")
	k, v, _ := strings.Cut(value, "=")
	var err error
	switch key {
	case "build-arg":
		put(&o.BuildArgs, k, v)
	case "label":
		put(&o.Labels, k, v)
	case "context":
		put(&o.Contexts, k, strings.ReplaceAll(v, "$DIR", dir))
	case "file":
		o.Dockerfile = strings.ReplaceAll(value, "$DIR", dir)
	case "target":
		o.Target = value
	case "network":
		o.Network = value
	case "add-host":
		o.AddHosts = append(o.AddHosts, value)
	case "ulimit":
		o.Ulimits = append(o.Ulimits, value)
	case "shm-size":
		o.ShmSize, err = strconv.ParseInt(value, 10, 64)
	case "no-cache":
		o.NoCache = true
	case "no-cache-filter":
		o.NoCacheFilter = append(o.NoCacheFilter, value)
	case "epoch":
		sec, perr := strconv.ParseInt(value, 10, 64)
		t := time.Unix(sec, 0)
		o.Epoch, err = &t, perr
	case "platforms":
		o.Platforms = nil
		for s := range strings.FieldsSeq(value) {
			p, perr := platforms.Parse(s)
			o.Platforms, err = append(o.Platforms, p), errors.Join(err, perr)
		}
	default:
		err = errors.New("unknown option")
	}
	return err
}

func put(m *map[string]string, k, v string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[k] = v
}

func fakes() Services {
	return Services{Images: &fakeImages{}, Layouts: fakeLayouts{}}
}

// build opens and builds o.
func build(t *testing.T, o Options, svc Services) (*Result, error) {
	t.Helper()
	in, err := Open(t.Context(), o)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
	return Build(t.Context(), in, svc)
}

// describe returns the golden form of a result.
func describe(t *testing.T, res *Result) string {
	t.Helper()
	var b strings.Builder
	for _, p := range res.Platforms {
		fmt.Fprintf(&b, "== %s\n", p.ID)
		text, err := p.Graph.Text()
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(text)
		fmt.Fprintf(&b, "config: %s\n", p.Config)
		if p.BaseConfig != nil && !json.Valid(p.BaseConfig) {
			t.Errorf("base config is no JSON: %s", p.BaseConfig)
		}
	}
	if res.MultiPlatform {
		b.WriteString("multi-platform\n")
	}
	if res.Epoch != nil {
		fmt.Fprintf(&b, "epoch: %d\n", res.Epoch.Unix())
	}
	for _, w := range res.Warnings {
		fmt.Fprintf(&b, "warning: %s %s:%v\n", w.Short, w.File, w.Ranges)
	}
	return b.String()
}

// compare compares got with the "want" section of a case, or rewrites the section if
// -update is set.
func compare(t *testing.T, path string, ar *txtar.Archive, got string) {
	t.Helper()
	for i := range ar.Files {
		if ar.Files[i].Name != "want" {
			continue
		}
		if *update {
			ar.Files[i].Data = []byte(got)
			break
		}
		if diff := cmp.Diff(string(ar.Files[i].Data), got); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
		return
	}
	if !*update {
		t.Fatalf("%s has no section named want", path)
	}
	if len(ar.Files) == 0 || ar.Files[len(ar.Files)-1].Name != "want" {
		ar.Files = append(ar.Files, txtar.File{Name: "want", Data: []byte(got)})
	}
	if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
		t.Fatal(err)
	}
}

func cases(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases match %s: %v", pattern, err)
	}
	return paths
}

func TestBuild(t *testing.T) {
	for _, path := range cases(t, "testdata/build/*.txtar") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, o := readCase(t, path)
			skipUpstreamRace(t, dockerfileOf(ar))
			res, err := build(t, o, fakes())
			if err != nil {
				t.Fatal(err)
			}
			compare(t, path, ar, strings.ReplaceAll(describe(t, res), filepath.Dir(o.Context), "$DIR"))
		})
	}
}

// skipUpstreamRace skips a Dockerfile with more than one reference to an image if the
// race detector is on (see TestBuildConcurrent).
func skipUpstreamRace(t *testing.T, dockerfile []byte) {
	t.Helper()
	text := strings.ToLower(string(dockerfile))
	if raceDetector && (strings.Count(text, "from") > 1 || strings.Contains(text, "trigger")) {
		t.Skip("BuildKit's resolve cache has a benign race as soon as two stages resolve")
	}
}

func dockerfileOf(ar *txtar.Archive) []byte {
	for _, f := range ar.Files {
		if name := strings.ToLower(f.Name); strings.HasSuffix(name, "file") {
			return f.Data
		}
	}
	return nil
}

// TestBuildErrors compares the output of PrintError: excerpt, line and text.
func TestBuildErrors(t *testing.T) {
	for _, path := range cases(t, "testdata/error/*.txtar") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, o := readCase(t, path)
			skipUpstreamRace(t, dockerfileOf(ar))
			_, err := build(t, o, fakes())
			if err == nil {
				t.Fatal("no error")
			}
			var b strings.Builder
			if err := PrintError(&b, err); err != nil {
				t.Fatal(err)
			}
			compare(t, path, ar, strings.ReplaceAll(b.String(), filepath.Dir(o.Context), "$DIR"))
		})
	}
}

// TestBuildTwice checks that graphs do not change between runs and that runs share no
// state.
func TestBuildTwice(t *testing.T) {
	_, o := readCase(t, "testdata/build/arg_env.txtar")
	in, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	var graphs []*llb.Graph
	for range 2 {
		res, err := Build(t.Context(), in, fakes())
		if err != nil {
			t.Fatal(err)
		}
		graphs = append(graphs, res.Platforms[0].Graph)
	}
	for i, v := range graphs[0].Vertices {
		if other := graphs[1].Vertices[i]; other == v || other.Digest != v.Digest {
			t.Errorf("vertex %d: %s, then %s", i, v.Digest, other.Digest)
		}
	}
}

// TestBuildConcurrent runs several platforms and several builds of the same inputs at
// once. There is one base image and one platform per build, so that the front end
// resolves once per run. BuildKit's resolve cache writes a constant to a shared field
// without a lock each time it is asked (frontend/dockerfile/builder/resolvecache.go).
// This is harmless, but the race detector reports it if two stages of one run resolve an
// image.
func TestBuildConcurrent(t *testing.T) {
	_, o := readCase(t, "testdata/build/arg_env.txtar")
	in, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	svc := fakes()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := Build(t.Context(), in, svc); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := svc.Images.(*fakeImages).calls["busybox"]; n != 8 {
		t.Errorf("busybox was resolved %d times in 8 builds, want once each", n)
	}
}

// TestScratchPlatforms covers the concurrency in one run without a base image (see
// TestBuildConcurrent).
func TestScratchPlatforms(t *testing.T) {
	_, o := readCase(t, "testdata/build/named_dir.txtar")
	o.Platforms = nil
	for _, arch := range []string{"amd64", "arm64", "s390x", "riscv64"} {
		o.Platforms = append(o.Platforms, ocispec.Platform{OS: "linux", Architecture: arch})
	}
	res, err := build(t, o, fakes())
	if err != nil {
		t.Fatal(err)
	}
	if !res.MultiPlatform || len(res.Platforms) != 4 || res.Platforms[3].ID != "linux/riscv64" {
		t.Errorf("platforms: %+v", res.Platforms)
	}
}

func TestPull(t *testing.T) {
	_, o := readCase(t, "testdata/build/arg_env.txtar")
	images := &fakeImages{}
	o.Pull = true
	if _, err := build(t, o, Services{Images: images}); err != nil {
		t.Fatal(err)
	}
	if images.pulls == 0 {
		t.Error("the image service was not told to pull")
	}
}

func TestWarningsSurviveFailure(t *testing.T) {
	_, o := readCase(t, "testdata/error/check_error.txtar")
	res, err := build(t, o, fakes())
	if err == nil || res == nil || len(res.Warnings) == 0 {
		t.Fatalf("res %+v, err %v", res, err)
	}
	w := res.Warnings[0]
	if w.File != "Dockerfile" || len(w.Ranges) == 0 || w.Ranges[0].Line != 3 || w.URL == "" || len(w.Detail) == 0 {
		t.Errorf("warning %+v", w)
	}
}

func TestMissingServices(t *testing.T) {
	_, o := readCase(t, "testdata/build/arg_env.txtar")
	_, err := build(t, o, Services{})
	if !errors.Is(err, errNoService) || len(errdefs.Sources(err)) == 0 {
		t.Errorf("err %v", err)
	}
}
