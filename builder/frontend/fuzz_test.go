package frontend

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzDockerfile runs the whole front end on arbitrary bytes: it reads, lints, resolves,
// converts, decodes the graph, and prints the error or the report. It must neither panic
// nor hang.
func FuzzDockerfile(f *testing.F) {
	for _, pattern := range []string{"testdata/build/*.txtar", "testdata/error/*.txtar"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			ar, err := txtar.ParseFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(dockerfileOf(ar), "A=b", uint8(0))
		}
	}
	f.Add([]byte(commented), "A", uint8(3))
	f.Add([]byte("ARG A=${B:?x}\nFROM ${A%%x*} AS b\nONBUILD COPY --from=trigger <<E /\n$A\nE\nFROM b\nEXPOSE $A\n"), "A=trigger", uint8(1))
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("a\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	dockerfile := filepath.Join(f.TempDir(), "Dockerfile")
	f.Fuzz(func(t *testing.T, data []byte, arg string, mode uint8) {
		// An ssh address makes the front end connect to a server.
		if strings.Contains(string(data), "ssh") || strings.Contains(string(data), "@") || strings.Contains(arg, "@") {
			return
		}
		skipUpstreamRace(t, data)
		if err := os.WriteFile(dockerfile, data, 0o600); err != nil {
			t.Fatal(err)
		}
		o := Options{Context: dir, Dockerfile: dockerfile, BuildPlatform: &amd64}
		o.Call = []string{"", "", CallCheck, CallTargets, CallOutline}[mode%5]
		if mode%5 == 1 {
			o.Platforms = []ocispec.Platform{amd64, platforms.MustParse("linux/arm64")}
		}
		if key, value, ok := strings.Cut(arg, "="); ok && key != "" {
			o.BuildArgs = map[string]string{key: value}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		in, err := Open(ctx, o)
		if err != nil {
			return
		}
		defer func() { _ = in.Close() }()
		res, err := Build(ctx, in, fakes())
		if errors.Is(err, errPanic) {
			t.Fatal(err)
		}
		var b strings.Builder
		if perr := PrintError(&b, err); perr != nil {
			t.Fatal(perr)
		}
		if res.Call != nil {
			if perr := res.Call.Print(&b, false); perr != nil {
				t.Fatal(perr)
			}
			b.WriteString(res.Call.Failure())
		}
		if strings.Contains(b.String(), "\x1b") {
			t.Errorf("control characters reach the terminal: %q", b.String())
		}
	})
}
