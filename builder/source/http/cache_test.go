package http

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// host is a server with one file that can change.
type host struct {
	mu       sync.Mutex
	content  string
	etag     string
	modified time.Time
	noHead   bool
	blind    bool // ignores If-None-Match
	asked    []string
}

func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	line := r.Method
	if r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since") != "" {
		line += " if"
	}
	h.asked = append(h.asked, line)
	if r.Method == http.MethodHead && h.noHead {
		http.Error(w, "no", http.StatusMethodNotAllowed)
		return
	}
	if h.etag != "" {
		w.Header().Set("ETag", h.etag)
	}
	if !h.modified.IsZero() {
		w.Header().Set("Last-Modified", h.modified.Format(http.TimeFormat))
	}
	if !h.blind && (h.etag != "" && r.Header.Get("If-None-Match") == h.etag ||
		!h.modified.IsZero() && r.Header.Get("If-Modified-Since") == h.modified.Format(http.TimeFormat)) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, h.content)
	}
}

func (h *host) requests() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.asked = nil }()
	return strings.Join(h.asked, ", ")
}

func TestCache(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		host   *host
		change func(h *host)
		opts   Options
		asked  string
		want   string
	}{
		{name: "ETag", host: &host{etag: `"1"`}, asked: "HEAD if", want: "old"},
		{name: "weak ETag", host: &host{etag: `W/"1"`}, asked: "HEAD if", want: "old"},
		{name: "ETag without conditions", host: &host{etag: `"1"`, blind: true}, asked: "HEAD if", want: "old"},
		{name: "ETag without HEAD", host: &host{etag: `"1"`, noHead: true}, asked: "HEAD if, GET if", want: "old"},
		{name: "ETag changed", host: &host{etag: `"1"`}, change: func(h *host) { h.etag = `"2"` }, asked: "HEAD if, GET if", want: "new"},
		{name: "time", host: &host{modified: modified}, asked: "GET if", want: "old"},
		{name: "time changed", host: &host{modified: modified}, change: func(h *host) { h.modified = modified.Add(time.Hour) }, asked: "GET if", want: "new"},
		{name: "time too young to tell", host: &host{modified: time.Now().UTC()}, asked: "GET", want: "new"},
		{name: "neither", asked: "GET", want: "new"},
		{name: "checksum", opts: Options{Checksum: digest.FromString("old")}, asked: "", want: "old"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := tt.host
			if h == nil {
				h = &host{}
			}
			h.content = "old"
			srv := httptest.NewServer(h)
			defer srv.Close()
			c := OpenCache(t.TempDir())
			get := func() string {
				d, err := c.Get(t.Context(), srv.URL+"/f", tt.opts)
				if err != nil {
					t.Fatal(err)
				}
				data, err := os.ReadFile(filepath.Join(d.Dir, d.Name))
				if err != nil {
					t.Fatal(err)
				}
				return string(data)
			}
			if got := get(); got != "old" {
				t.Fatalf("got %q", got)
			}
			h.requests()
			h.content = "new"
			if tt.change != nil {
				tt.change(h)
			}
			if got := get(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got := h.requests(); got != tt.asked {
				t.Errorf("asked %q, want %q", got, tt.asked)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCacheLeftovers checks that old versions and the files of killed downloads are
// removed, but not while another build uses them.
func TestCacheLeftovers(t *testing.T) {
	t.Parallel()
	h := &host{content: "one", etag: `"1"`}
	srv := httptest.NewServer(h)
	defer srv.Close()
	dir := t.TempDir()
	first := OpenCache(dir)
	d, err := first.Get(t.Context(), srv.URL+"/f", Options{})
	if err != nil {
		t.Fatal(err)
	}
	h.content, h.etag = "two", `"2"`
	second := OpenCache(dir)
	if _, err := second.Get(t.Context(), srv.URL+"/f", Options{}); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(d.Dir, d.Name)); err != nil || string(data) != "one" {
		t.Errorf("a file in use holds %q, %v", data, err)
	}
	if err := os.Mkdir(filepath.Join(filepath.Dir(d.Dir), "file-killed"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Cache{first, second} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	third := OpenCache(dir)
	defer third.Close()
	if _, err := third.Get(t.Context(), srv.URL+"/f", Options{}); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(d.Dir), "file-*"))
	if err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestCacheDamage checks that a damaged file is downloaded again.
func TestCacheDamage(t *testing.T) {
	t.Parallel()
	h := &host{content: "content", etag: `"1"`}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	for name, damage := range map[string]func(base, file string) error{
		"record": func(base, _ string) error { return os.WriteFile(filepath.Join(base, recordName), []byte("{"), 0o600) },
		"path": func(base, _ string) error {
			return os.WriteFile(filepath.Join(base, recordName), []byte(`{"Dir":"..","Name":"x"}`), 0o600)
		},
		"truncated": func(_, file string) error { return os.Truncate(file, 2) },
		"gone":      func(_, file string) error { return os.Remove(file) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := OpenCache(t.TempDir())
			defer c.Close()
			d, err := c.Get(t.Context(), srv.URL+"/f", Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(filepath.Dir(d.Dir), filepath.Join(d.Dir, d.Name)); err != nil {
				t.Fatal(err)
			}
			if d, err = c.Get(t.Context(), srv.URL+"/f", Options{}); err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(filepath.Join(d.Dir, d.Name)); err != nil || string(data) != "content" {
				t.Errorf("got %q, %v", data, err)
			}
		})
	}
}

func TestAuthorize(t *testing.T) {
	t.Parallel()
	secrets := map[string]string{
		"HTTP_AUTH_TOKEN_a.test": "t\n", "HTTP_AUTH_HEADER_a.test": "Basic x", "HTTP_AUTH_HEADER_b.test": "Basic y",
		"HTTP_AUTH_TOKEN_c.test": "x\r\nHost: evil", "named": "Bearer n",
	}
	get := func(id string) ([]byte, bool, error) { v, ok := secrets[id]; return []byte(v), ok, nil }
	for _, tt := range []struct{ url, id, want, fails string }{
		{url: "https://a.test/f", want: "Bearer t"},
		{url: "https://a.test:8443/f", want: "Bearer t"},
		{url: "https://b.test/f", want: "Basic y"},
		{url: "https://sub.a.test/f"},
		{url: "https://c.test/f", fails: "line break"},
		{url: "https://d.test/f", id: "named", want: "Bearer n"},
		{url: "https://d.test/f", id: "missing", fails: "not found"},
	} {
		o := Options{AuthSecret: tt.id}
		err := o.Authorize(tt.url, get)
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%s: error %v, want %q", tt.url, err, tt.fails)
			}
			continue
		}
		if err != nil || o.Header.Get("Authorization") != tt.want {
			t.Errorf("%s gets %q, %v; want %q", tt.url, o.Header.Get("Authorization"), err, tt.want)
		}
	}
}

// TestEncoding checks that a compressed transfer is decompressed, and that an archive is
// not.
func TestEncoding(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte("plain"))
	_ = z.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/encoded" && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
		}
		_, _ = w.Write(packed.Bytes())
	}))
	defer srv.Close()
	for path, want := range map[string]string{"/encoded": "plain", "/file.gz": packed.String()} {
		file, _, err := Fetch(t.Context(), srv.URL+path, Options{}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(file); err != nil || string(data) != want {
			t.Errorf("%s is %q, %v", path, data, err)
		}
	}
}

// TestEntryName checks which options change the name of an entry.
func TestEntryName(t *testing.T) {
	t.Parallel()
	perm, id := uint32(0o644), uint32(0)
	var names []string
	for _, o := range []Options{
		{},
		{Filename: "a"},
		{Perm: &perm},
		{UID: &id},
		{GID: &id},
		{AuthSecret: "s"},
		{Header: http.Header{"Accept": {"text/plain"}}},
		{Header: http.Header{"User-Agent": {"x"}}},
	} {
		names = append(names, entryName("http://h/f", o))
	}
	names = append(names, entryName("http://h/g", Options{}))
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("some are the same: %v", names)
	}
	if o := (Options{Header: http.Header{"Authorization": {"secret"}}}); entryName("http://h/f", o) != entryName("http://h/f", Options{}) {
		t.Error("a secret makes the name another")
	}
}
