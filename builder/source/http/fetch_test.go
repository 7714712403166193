package http

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

const body = "content of the file"

var modified = time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)

func serve(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"tag"`)
		w.Header().Set("Last-Modified", modified.Format(http.TimeFormat))
		if r.Header.Get("If-None-Match") == `"tag"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, body)
	})
	mux.HandleFunc("/missing", http.NotFound)
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/file-scheme", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "short")
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestFetch(t *testing.T) {
	s, dir := serve(t), t.TempDir()
	file, meta, err := Fetch(t.Context(), s.URL+"/a/b.txt?q=1", Options{Checksum: digest.FromString(body)}, dir)
	if err != nil {
		t.Fatal(err)
	}
	want := Meta{Digest: digest.FromString(body), LastModified: modified, Dated: true, Steady: true, ETag: `"tag"`, Size: int64(len(body))}
	if meta != want || file != filepath.Join(dir, "b.txt") {
		t.Errorf("got %s %+v, want %+v", file, meta, want)
	}
	st, err := os.Stat(file)
	if err != nil || st.Mode() != 0o600 || !st.ModTime().Equal(modified) {
		t.Errorf("file has mode %v, time %v, %v", st.Mode(), st.ModTime(), err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != body {
		t.Errorf("file holds %q, %v", got, err)
	}
}

func TestNames(t *testing.T) {
	s := serve(t)
	for url, want := range map[string]string{
		"/x": "x", "/d/": unnamed, "/": unnamed, "": unnamed, "/..": unnamed, "/a/..%2f..%2fetc%2fpasswd": "passwd",
		"/..%2f": unnamed, "/a%00b": unnamed, "/%C3%A4+b": "ä+b", "/" + strings.Repeat("n", 300): unnamed,
	} {
		dir := t.TempDir()
		file, _, err := Fetch(t.Context(), s.URL+url, Options{}, dir)
		if err != nil || file != filepath.Join(dir, want) {
			t.Errorf("%s is saved as %q, %v; want %q", url, file, err, want)
		}
	}
	for _, name := range []string{"../x", "/x", "..", "a/b"} {
		if file, _, err := Fetch(t.Context(), s.URL, Options{Filename: name}, t.TempDir()); err == nil {
			t.Errorf("name %q is saved as %s", name, file)
		}
	}
}

func TestRefused(t *testing.T) {
	s := serve(t)
	var status *StatusError
	var checksum *ChecksumError
	tests := map[string]struct {
		url  string
		opts Options
		is   func(error) bool
	}{
		"status":       {s.URL + "/missing", Options{}, func(err error) bool { return errors.As(err, &status) && status.Code == 404 }},
		"checksum":     {s.URL + "/x", Options{Checksum: digest.FromString("other")}, func(err error) bool { return errors.As(err, &checksum) }},
		"bad checksum": {s.URL + "/x", Options{Checksum: "sha256:zz"}, func(err error) bool { return errors.Is(err, digest.ErrDigestInvalidLength) }},
		"size":         {s.URL + "/x", Options{MaxSize: 5}, func(err error) bool { return errors.Is(err, ErrTooLarge) }},
		"same":         {s.URL + "/x", Options{ETag: `"tag"`}, func(err error) bool { return errors.Is(err, ErrNotModified) }},
		"redirects":    {s.URL + "/loop", Options{}, func(err error) bool { return strings.Contains(err.Error(), "redirects") }},
		"scheme":       {"file:///etc/passwd", Options{}, func(err error) bool { return strings.Contains(err.Error(), "scheme") }},
		"to scheme":    {s.URL + "/file-scheme", Options{}, func(err error) bool { return strings.Contains(err.Error(), "scheme") }},
		"cut":          {s.URL + "/cut", Options{}, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, _, err := Fetch(t.Context(), tt.url, tt.opts, dir)
			if err == nil || !tt.is(err) {
				t.Errorf("error %v", err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestCredentials redirects to another host and back.
func TestCredentials(t *testing.T) {
	var atOther, back http.Header
	var first *httptest.Server
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		atOther = r.Header.Clone()
		http.Redirect(w, r, first.URL+"/back", http.StatusFound)
	}))
	defer other.Close()
	first = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/back" {
			back = r.Header.Clone()
			return
		}
		http.Redirect(w, r, other.URL, http.StatusFound)
	}))
	defer first.Close()
	secret := http.Header{"Authorization": {"Bearer s3cret"}, "X-Token": {"s3cret"}}
	if _, _, err := Fetch(t.Context(), first.URL+"/start", Options{Header: secret}, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for key, values := range atOther {
		if strings.Contains(strings.Join(values, " "), "s3cret") {
			t.Errorf("the other host saw %s", key)
		}
	}
	if back == nil {
		t.Error("redirect was not followed")
	}
	_, _, err := Fetch(t.Context(), "http://user:s3cret@127.0.0.1:1/x", Options{}, t.TempDir())
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("error tells the password: %v", err)
	}
}

func TestSpooled(t *testing.T) {
	spool := filepath.Join(t.TempDir(), "stdin")
	if err := os.WriteFile(spool, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	const url = "http://stdin.invalid/context"
	perm := uint32(0o640)
	dir := t.TempDir()
	file, meta, err := Fetch(t.Context(), url, Options{Spooled: map[string]string{url: spool}, Perm: &perm}, dir)
	if err != nil || file != filepath.Join(dir, "context") || meta.Digest != digest.FromString(body) {
		t.Fatalf("%s %+v %v", file, meta, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o640 || st.ModTime().Unix() != 0 {
		t.Errorf("%v %v", st, err)
	}
}

func TestParseAttrs(t *testing.T) {
	o, err := ParseAttrs(map[string]string{
		"http.checksum": digest.FromString(body).String(), "http.filename": "f", "http.perm": "0755", "http.uid": "5", "http.gid": "0x6",
	})
	if err != nil || *o.Perm != 0o755 || *o.UID != 5 || *o.GID != 6 || o.Filename != "f" {
		t.Errorf("%+v %v", o, err)
	}
	for key, value := range map[string]string{
		"http.unknown": "x", "http.perm": "010000", "http.uid": "-1", "http.gid": "4294967295", "http.checksum": "md5:x",
	} {
		if _, err := ParseAttrs(map[string]string{key: value}); err == nil {
			t.Errorf("%s=%s is taken", key, value)
		}
	}
}
