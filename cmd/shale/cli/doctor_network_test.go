package cli

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shale-build/shale/runtime/probe"
	"github.com/shale-build/shale/storage/registry"
)

func TestNetworkResults(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	plain, locked := httptest.NewServer(answer), httptest.NewTLSServer(answer)
	t.Cleanup(plain.Close)
	t.Cleanup(locked.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	host := func(url string) string { return url[strings.Index(url, "://")+3:] }
	insecure := func(location string) string {
		return "[[registry]]\nlocation = \"" + location + "\"\ninsecure = true\n"
	}
	secure := func(location string) string { return "[[registry]]\nlocation = \"" + location + "/team\"\n" }
	for name, test := range map[string]struct {
		conf string
		env  map[string]string
		// want lists parts of the results, in order: status, detail and fix.
		want [][3]string
	}{
		"nothing configured":          {},
		"plain registry":              {conf: secure(host(plain.URL)), want: [][3]string{{"degraded", host(plain.URL) + " speaks plain HTTP", "insecure = true"}}},
		"plain registry, known to be": {conf: insecure(host(plain.URL)), want: [][3]string{{"ok", host(plain.URL), ""}}},
		"certificate":                 {conf: secure(host(locked.URL)), want: [][3]string{{"degraded", "cannot be reached: ", ""}}},
		"no registry":                 {conf: secure(closed.Addr().String()), want: [][3]string{{"degraded", "connection refused", ""}}},
		"mirror": {
			conf: "[[registry]]\nlocation = \"" + host(plain.URL) + "\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"" + closed.Addr().String() + "/m\"\n",
			want: [][3]string{{"", "", ""}, {"", "", ""}},
		},
		"blocked and wild": {conf: "[[registry]]\nlocation = \"" + closed.Addr().String() + "\"\nblocked = true\n[[registry]]\nprefix = \"*.corp.test\"\n"},
		"broken file":      {conf: "[[registry", want: [][3]string{{"degraded", "read registries.conf", "correct the file"}}},
		"proxy":            {env: map[string]string{"http_proxy": plain.URL, "HTTPS_PROXY": plain.URL}, want: [][3]string{{"ok", plain.URL, ""}}},
		"proxy that is down": {
			env:  map[string]string{"https_proxy": "http://u:hunter2@" + closed.Addr().String()},
			want: [][3]string{{"degraded", "connection refused", "correct or unset https_proxy"}},
		},
		"proxy without scheme": {env: map[string]string{"HTTP_PROXY": host(plain.URL)}, want: [][3]string{{"ok", host(plain.URL), ""}}},
		"no address":           {env: map[string]string{"HTTP_PROXY": "gopher://x"}, want: [][3]string{{"degraded", "not the address of a proxy", "HTTP_PROXY"}}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "registries.conf")
			if err := os.WriteFile(file, []byte(test.conf), 0o600); err != nil {
				t.Fatal(err)
			}
			client := registry.New(nil, registry.Options{RegistriesConf: file, RegistriesConfDir: t.TempDir()})
			got := networkResults(t.Context(), client, func(name string) (string, bool) { v, ok := test.env[name]; return v, ok })
			if len(got) != len(test.want) {
				t.Fatalf("got %+v", got)
			}
			for i, w := range test.want {
				r := got[i]
				if w[0] != "" && r.Status != probe.Status(w[0]) || !strings.Contains(r.Detail, w[1]) || (w[2] == "") != (r.Fix == "") && w[0] != "" || !strings.Contains(r.Fix, w[2]) {
					t.Errorf("got %+v, want %q", r, w)
				}
				if strings.Contains(r.Detail+r.Fix, "hunter2") {
					t.Errorf("a password is shown: %+v", r)
				}
			}
		})
	}
}
