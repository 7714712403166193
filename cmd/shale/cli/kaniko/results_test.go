package kaniko

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const someDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	names := []string{"-d", "app", "-d", "r.test:5000/a/b:v1", "-d", "docker.io/u/x"}
	tests := map[string]struct {
		args []string
		want map[string]string
	}{
		"digest": {[]string{"--digest-file=" + at("deep/er/digest")}, map[string]string{"deep/er/digest": someDigest}},
		"names": {[]string{"--image-name-with-digest-file", at("names")}, map[string]string{
			"names": "index.docker.io/library/app@" + someDigest + "\nr.test:5000/a/b@" + someDigest + "\nindex.docker.io/u/x@" + someDigest + "\n",
		}},
		"tags": {[]string{"--image-name-tag-with-digest-file", at("tags")}, map[string]string{
			"tags": "index.docker.io/library/app:latest@" + someDigest + "\nr.test:5000/a/b:v1@" + someDigest + "\nindex.docker.io/u/x:latest@" + someDigest + "\n",
		}},
		"outputs": {nil, map[string]string{
			"images": `{"name":"app","digest":"` + someDigest + `"}` + "\n" + `{"name":"r.test:5000/a/b:v1","digest":"` + someDigest + `"}` + "\n" + `{"name":"docker.io/u/x","digest":"` + someDigest + `"}` + "\n",
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := Parse(append(test.args, names...), environment("BUILDER_OUTPUT="+dir))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Write(t.Context(), someDigest); err != nil {
				t.Fatal(err)
			}
			for name, want := range test.want {
				got, err := os.ReadFile(at(name))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, string(got)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}

func TestWriteToURL(t *testing.T) {
	var got string
	status := http.StatusOK
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		got = r.Method + " " + r.URL.RequestURI() + " " + r.Header.Get("Content-Type") + " " + string(data)
		w.WriteHeader(status)
	}))
	defer server.Close()
	before := http.DefaultClient
	http.DefaultClient = server.Client()
	defer func() { http.DefaultClient = before }()
	c, err := Parse([]string{"--no-push", "--digest-file=" + server.URL + "/x?sig=1"}, environment())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(t.Context(), someDigest); err != nil {
		t.Fatal(err)
	}
	if want := "PUT /x?sig=1 text/plain " + someDigest; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	status = http.StatusForbidden
	if err := c.Write(t.Context(), someDigest); err == nil {
		t.Error("an answer of 403 is no error")
	}
}
