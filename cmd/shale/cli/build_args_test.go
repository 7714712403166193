package cli

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shale-build/shale/builder/frontend"
)

func TestAddProxies(t *testing.T) {
	dir := t.TempDir()
	tests := map[string]struct {
		file       string
		args, want map[string]string
		wantErr    bool
	}{
		"no file":        {want: map[string]string{}},
		"no proxies":     {file: `{"auths":{}}`, want: map[string]string{}},
		"another daemon": {file: `{"proxies":{"tcp://x":{"httpProxy":"p"}}}`, want: map[string]string{}},
		"all": {
			file: `{"proxies":{"default":{"httpProxy":"a","httpsProxy":"b","ftpProxy":"c","noProxy":"d"}}}`,
			want: map[string]string{"HTTP_PROXY": "a", "HTTPS_PROXY": "b", "FTP_PROXY": "c", "NO_PROXY": "d"},
		},
		"given": {
			file: `{"proxies":{"default":{"httpProxy":"a","noProxy":"d"}}}`, args: map[string]string{"http_proxy": "mine", "X": "y"},
			want: map[string]string{"http_proxy": "mine", "NO_PROXY": "d", "X": "y"},
		},
		"broken": {file: `{`, want: map[string]string{}, wantErr: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			home := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Join(home, ".docker"), 0o700); err != nil {
				t.Fatal(err)
			}
			if tc.file != "" {
				if err := os.WriteFile(filepath.Join(home, ".docker", "config.json"), []byte(tc.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, key := range []string{"HOME", "DOCKER_CONFIG"} {
				value := map[string]string{"HOME": home, "DOCKER_CONFIG": filepath.Join(home, ".docker")}[key]
				args := map[string]string{}
				maps.Copy(args, tc.args)
				err := addProxies(args, func(name string) (string, bool) { return value, name == key })
				if (err != nil) != tc.wantErr {
					t.Errorf("by %s: error %v", key, err)
				}
				if diff := cmp.Diff(tc.want, args); diff != "" {
					t.Errorf("by %s (-want +got):\n%s", key, diff)
				}
			}
		})
	}
}

func TestPrintUnused(t *testing.T) {
	var b bytes.Buffer
	printUnused(&b, nil)
	printUnused(&b, []frontend.UnusedArg{{Name: "VERSON", Nearest: "VERSION"}, {Name: "x"}})
	const want = "[Warning] One or more build-args [VERSON x] were not consumed\n - VERSON (did you mean VERSION?)\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

// TestFlagsOfDocker tests flags of docker that have no effect in shale or are not
// available.
func TestFlagsOfDocker(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch AS a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{
		"--builder=default", "--compress", "--rm", "--rm=false", "--force-rm", "--disable-content-trust=false",
		"--isolation=default", "--isolation=", "--squash=false", "--policy=disabled=true", "--provenance=false", "--sbom=false",
	} {
		var out, errOut bytes.Buffer
		if code := Main(t.Context(), []string{"shale", "build", flag, "--call=targets", dir}, Streams{Out: &out, Err: &errOut}); code != 0 {
			t.Errorf("%s: exit code %d: %s", flag, code, errOut.String())
		}
	}
	for _, flag := range []string{
		"--policy=filename=x.rego",
		"--security-opt=seccomp=unconfined", "--squash",
	} {
		var out, errOut bytes.Buffer
		code := Main(t.Context(), []string{"shale", "build", flag, "--call=targets", dir}, Streams{Out: &out, Err: &errOut})
		if code != exitOwn || !bytes.Contains(errOut.Bytes(), []byte("is not available in this version: ")) {
			t.Errorf("%s: exit code %d: %s", flag, code, errOut.String())
		}
	}
}
