package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/builder/frontend"
)

func TestParseCall(t *testing.T) {
	tests := map[string]callOptions{
		"":                                   {},
		"build":                              {},
		"check":                              {name: frontend.CallCheck},
		"lint":                               {name: frontend.CallCheck},
		"format=json,check":                  {name: frontend.CallCheck, json: true},
		"outline,format=text":                {name: frontend.CallOutline},
		"check,ignorestatus=1,format=json":   {name: frontend.CallCheck, json: true, ignoreStatus: true},
		"subrequests.describe,format=json":   {name: frontend.CallDescribe, json: true},
		`"targets",ignorestatus=false`:       {name: frontend.CallTargets},
		"something.the.front.end.may.learn!": {name: "something.the.front.end.may.learn!"},
	}
	for value, want := range tests {
		if got, err := parseCall(value); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", value, got, err, want)
		}
	}
	for _, bad := range []string{"a,b", "check,foo=1", "check,ignorestatus=x", `"a`} {
		if got, err := parseCall(bad); err == nil {
			t.Errorf("%q is accepted as %+v", bad, got)
		}
	}
}

// TestReportAlone makes reports that need neither namespaces nor a store. It can
// therefore run in the process of the test.
func TestReportAlone(t *testing.T) {
	dir := t.TempDir()
	dockerfile := "# tools does it\nFROM nowhere.test/a AS tools\nFROM tools\nFROM nowhere.test/b AS Last\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600); err != nil {
		t.Fatal(err)
	}
	metadata := filepath.Join(dir, "metadata")
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"targets":   {[]string{"--call=targets"}, 0, "TARGET         DESCRIPTION\ntools          does it\n               \nlast (default) \n"},
		"old name":  {[]string{"--print", "targets"}, 0, "does it"},
		"json":      {[]string{"--call=targets,format=json", "--metadata-file", metadata}, 0, `"description": "does it"`},
		"describe":  {[]string{"--call", "subrequests.describe"}, 0, "NAME                 VERSION DESCRIPTION\noutline              1.0.0   List all parameters current build target supports\ntargets              1.0.0   List all targets current build supports\nsubrequests.describe 1.0.0   List available subrequest types\n"},
		"two calls": {[]string{"--call=targets", "--check"}, exitOwn, ""},
		"syntax":    {[]string{"--call=targets", "--build-arg", "BUILDKIT_SYNTAX=example.com/other"}, exitOwn, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			args := append([]string{"shale", "build", "--progress=plain", dir}, tc.args...)
			code := Main(t.Context(), args, Streams{Out: &out, Err: &errOut})
			if code != tc.code || !strings.Contains(out.String(), tc.want) {
				t.Errorf("exit code %d, output:\n%s%s", code, out.String(), errOut.String())
			}
		})
	}
	var file map[string]any
	data, err := os.ReadFile(metadata)
	if err == nil {
		err = json.Unmarshal(data, &file)
	}
	report, ok := file["result.json"].(map[string]any)
	if err != nil || !ok || report["targets"] == nil || file["version"] != "1.0.0" {
		t.Errorf("metadata %s, %v", data, err)
	}
}

func TestMetadataWarnings(t *testing.T) {
	r := resultFiles{warnings: []client.VertexWarning{{Short: []byte("x")}}}
	res := &builder.Result{Metadata: map[string]any{"k": "v"}}
	if got := r.metadata(res); got[metadataWarnings] != nil {
		t.Error("lint findings are written without being asked for")
	}
	t.Setenv(metadataWarningsEnv, "1")
	if got := r.metadata(res); got[metadataWarnings] == nil || got["k"] != "v" {
		t.Errorf("metadata %v", got)
	}
	if res.Metadata[metadataWarnings] != nil {
		t.Error("the build's own metadata is changed")
	}
}
