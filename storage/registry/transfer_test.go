package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
	"github.com/shale-build/shale/storage/registry"
	"github.com/shale-build/shale/storage/storetest"
)

// between starts a server between a client and a registry. It passes a request on to the
// registry if change returns false. Otherwise change has answered the request itself.
func between(t *testing.T, reg *server, change func(http.ResponseWriter, *http.Request) bool, respond func(*http.Response) error) string {
	t.Helper()
	target, err := url.Parse("http://" + reg.addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // the registry answers with addresses, which must lead back to this server
		},
		ModifyResponse: respond,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if change == nil || !change(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestPullFromHostileRegistries(t *testing.T) {
	reg := serve(t, "")
	s := storetest.Open(t, storetest.NewRoots(t))
	src := source(t, s, "hostile")
	push(t, client(t, s, nil), src, reg.addr+"/hostile", registry.PushOptions{})
	_, m := manifestOf(t, client(t, s, nil), reg.addr+"/hostile")
	victim := m.Layers[0].Digest
	for name, tamper := range map[string]func([]byte) []byte{
		"other content":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"short":           func(b []byte) []byte { return b[:len(b)-9] },
		"something else":  func([]byte) []byte { return []byte("<html>") },
		"empty":           func([]byte) []byte { return nil },
		"more behind it":  func(b []byte) []byte { return append(b, "more"...) },
		"another gzip":    func(b []byte) []byte { return append(b, b...) },
		"without its end": func(b []byte) []byte { return b[:20] },
	} {
		t.Run(name, func(t *testing.T) {
			addr := between(t, reg, nil, func(r *http.Response) error {
				if r.Request.Method != http.MethodGet || !strings.HasSuffix(r.Request.URL.Path, "/blobs/"+victim.String()) {
					return nil
				}
				data, err := io.ReadAll(r.Body)
				if err != nil {
					return err
				}
				data = tamper(data)
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
				r.Header.Set("Content-Length", strconv.Itoa(len(data)))
				return nil
			})
			other := storetest.Open(t, storetest.NewRoots(t))
			img, err := client(t, other, nil).Pull(t.Context(), addr+"/hostile", registry.PullOptions{Platform: amd64})
			if err == nil {
				t.Fatalf("pulled %+v", img)
			}
			layers, listErr := other.Layers()
			images, imagesErr := other.Images()
			if err := errors.Join(listErr, imagesErr); err != nil || len(layers) != 0 || len(images) != 0 {
				t.Errorf("%d layers and %d images remain, %v", len(layers), len(images), err)
			}
			// The next pull, from the registry itself, succeeds.
			img, err = client(t, other, nil).Pull(t.Context(), reg.addr+"/hostile", registry.PullOptions{Platform: amd64})
			if err != nil {
				t.Fatal(err)
			}
			checkLayers(t, other, img, src)
		})
	}
}

// The config names another layer than the manifest has.
func TestPullRefusesOtherLayers(t *testing.T) {
	reg := serve(t, "")
	s := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, s, nil)
	src := source(t, s, "honest")
	push(t, c, src, reg.addr+"/lies", registry.PushOptions{})
	_, m := manifestOf(t, c, reg.addr+"/lies")
	up, err := c.Upload(t.Context(), reg.addr+"/lies:2", registry.UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := bytes.Replace(src.Config, []byte(src.Layers[1].DiffID), []byte(digest.FromString("other")), 1)
	if _, _, err := up.Put(t.Context(), ocispec.Descriptor{}, bytes.NewReader(config)); err != nil {
		t.Fatal(err)
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d},{"mediaType":%q,"digest":%q,"size":%d}]}`,
		ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, digest.FromBytes(config), len(config),
		m.Layers[0].MediaType, m.Layers[0].Digest, m.Layers[0].Size, m.Layers[1].MediaType, m.Layers[1].Digest, m.Layers[1].Size)
	if err := errors.Join(up.Manifest(t.Context(), []byte(manifest)), up.Close()); err != nil {
		t.Fatal(err)
	}
	other := storetest.Open(t, storetest.NewRoots(t))
	_, err = client(t, other, nil).Pull(t.Context(), reg.addr+"/lies:2", registry.PullOptions{Platform: amd64})
	if err == nil || !strings.Contains(err.Error(), "does not match") {
		t.Errorf("error %v", err)
	}
	if images, err := other.Images(); err != nil || len(images) != 0 {
		t.Errorf("%d images, %v", len(images), err)
	}
}

// Layers that were complete before a pull failed are not fetched again.
func TestPullGoesOn(t *testing.T) {
	reg := serve(t, "")
	s := storetest.Open(t, storetest.NewRoots(t))
	src := source(t, s, "goes on")
	push(t, client(t, s, nil), src, reg.addr+"/goes-on", registry.PushOptions{})
	_, m := manifestOf(t, client(t, s, nil), reg.addr+"/goes-on")
	var first, second atomic.Int32
	var fail atomic.Bool
	fail.Store(true)
	done := make(chan struct{})
	addr := between(t, reg, func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method != http.MethodGet:
		case strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()):
			if first.Add(1) == 1 {
				close(done)
			}
		case strings.HasSuffix(r.URL.Path, m.Layers[1].Digest.String()):
			second.Add(1)
			if fail.Load() {
				<-done
				w.WriteHeader(http.StatusForbidden)
				return true
			}
		}
		return false
	}, nil)
	other := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, other, nil)
	// If the first layer is complete by then, it is recorded.
	for range 50 {
		if _, err := c.Pull(t.Context(), addr+"/goes-on", registry.PullOptions{Platform: amd64}); err == nil {
			t.Fatal("a forbidden layer was pulled")
		}
		layers, err := other.Layers()
		if err != nil {
			t.Fatal(err)
		}
		if len(layers) == 1 {
			break
		}
	}
	fail.Store(false)
	// A request of a failed pull may still arrive.
	before := first.Load()
	for still := 0; still < 5; still++ {
		time.Sleep(50 * time.Millisecond)
		if now := first.Load(); now != before {
			before, still = now, 0
		}
	}
	img, err := c.Pull(t.Context(), addr+"/goes-on", registry.PullOptions{Platform: amd64})
	if err != nil {
		t.Fatal(err)
	}
	checkLayers(t, other, img, src)
	if layers, err := other.Layers(); err != nil || len(layers) != 2 {
		t.Errorf("%d layers, %v", len(layers), err)
	}
	if n := first.Load() - before; n > 1 {
		t.Errorf("the first layer was fetched %d times more", n)
	}
}

// A push does not read layers that it has compressed before: their files may be damaged
// or missing.
func TestSecondPushReadsNothing(t *testing.T) {
	reg := serve(t, "")
	s := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, s, nil)
	src := source(t, s, "again")
	first := push(t, c, src, reg.addr+"/again:1", registry.PushOptions{})
	for _, l := range []int{1, 0} {
		if err := s.DeleteLayer(src.Layers[l].ID); err != nil {
			t.Fatal(err)
		}
	}
	// This client stands for another process, without records in memory.
	c = client(t, s, nil)
	if again := push(t, c, src, reg.addr+"/again:2", registry.PushOptions{}); again.Digest != first.Digest {
		t.Errorf("pushed %s, then %s", first.Digest, again.Digest)
	}
	// If a registry does not have the blobs, the layers must be sent.
	if _, err := c.Push(t.Context(), src, serve(t, "").addr+"/again", registry.PushOptions{}); !errors.Is(err, storage.ErrLayerUnknown) {
		t.Errorf("error %v, want %v", err, storage.ErrLayerUnknown)
	}
}

// Layers of a base image are pushed as they were published, if the registry has them.
func TestPushKeepsPublishedLayers(t *testing.T) {
	reg := serve(t, "")
	s := storetest.Open(t, storetest.NewRoots(t))
	src := source(t, s, "published")
	fast := 1
	desc := push(t, client(t, s, nil), src, reg.addr+"/published", registry.PushOptions{Level: &fast})
	other := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, other, nil)
	if _, err := c.Pull(t.Context(), reg.addr+"/published", registry.PullOptions{Platform: amd64}); err != nil {
		t.Fatal(err)
	}
	pulled, err := c.SourceOf(reg.addr + "/published:latest")
	if err != nil {
		t.Fatal(err)
	}
	if got := push(t, c, pulled, reg.addr+"/copy", registry.PushOptions{}); got.Digest != desc.Digest {
		t.Errorf("pushed %s, pulled %s", got.Digest, desc.Digest)
	}
	if got := push(t, c, pulled, reg.addr+"/forced", registry.PushOptions{Compression: registry.Zstd}); got.Digest == desc.Digest {
		t.Error("the compression that was asked for was not used")
	}
}

func TestConcurrentPushes(t *testing.T) {
	reg := serve(t, "")
	s := storetest.Open(t, storetest.NewRoots(t))
	src := source(t, s, "side by side")
	digests, errs := make([]digest.Digest, 6), make([]error, 6)
	c := client(t, s, nil)
	var wg sync.WaitGroup
	for i := range digests {
		wg.Go(func() {
			push := func() (ocispec.Descriptor, error) {
				return c.Push(t.Context(), src, fmt.Sprintf("%s/side%d:1", reg.addr, i%2), registry.PushOptions{})
			}
			desc, err := push()
			// If the registry gets a manifest twice at the same time, it writes both into
			// one file, and it may read that file while it is half written.
			for attempt := 0; err != nil && strings.Contains(err.Error(), "digest invalid") && attempt < 5; attempt++ {
				desc, err = push()
			}
			digests[i], errs[i] = desc.Digest, err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, d := range digests {
		if d != digests[0] {
			t.Errorf("pushed %s and %s", digests[0], d)
		}
	}
}

// An interrupted upload makes the push fail. No tag is written and the blob is not
// recorded, so the next push sends it again.
func TestInterruptedUpload(t *testing.T) {
	reg := serve(t, "")
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"connection lost": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		},
		"refused": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInsufficientStorage) },
		// The server answers as if it had read everything.
		"answered too early": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", r.URL.Path)
			w.WriteHeader(http.StatusAccepted)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := storetest.Open(t, storetest.NewRoots(t))
			c := client(t, s, nil)
			src := source(t, s, name)
			repository := "/" + strings.ReplaceAll(name, " ", "-")
			var broken atomic.Bool
			broken.Store(true)
			addr := between(t, reg, func(w http.ResponseWriter, r *http.Request) bool {
				if !broken.Load() || r.Method != http.MethodPatch {
					return false
				}
				answer(w, r)
				return true
			}, nil)
			if _, err := c.Push(t.Context(), src, addr+repository, registry.PushOptions{}); err == nil {
				t.Fatal("an upload that broke off was a success")
			}
			if _, err := c.Resolve(t.Context(), addr+repository, amd64); !errors.Is(err, registry.ErrNotFound) {
				t.Errorf("the image has a name: %v", err)
			}
			broken.Store(false)
			desc := push(t, client(t, s, nil), src, addr+repository, registry.PushOptions{})
			other := storetest.Open(t, storetest.NewRoots(t))
			img, err := client(t, other, nil).Pull(t.Context(), reg.addr+repository+"@"+desc.Digest.String(), registry.PullOptions{Platform: amd64})
			if err != nil {
				t.Fatal(err)
			}
			checkLayers(t, other, img, src)
		})
	}
}

func TestPushIsCancelled(t *testing.T) {
	reg := serve(t, "")
	s := storetest.Open(t, storetest.NewRoots(t))
	src := source(t, s, "cancelled")
	ctx, cancel := context.WithCancel(t.Context())
	addr := between(t, reg, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			cancel()
		}
		return false
	}, nil)
	if _, err := client(t, s, nil).Push(ctx, src, addr+"/cancelled", registry.PushOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// Has of an Upload returns false for a blob that the registry has with another size.
func TestUploadHas(t *testing.T) {
	reg := serve(t, "")
	c := client(t, storetest.Open(t, storetest.NewRoots(t)), nil)
	up, err := c.Upload(t.Context(), reg.addr+"/has", registry.UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	dgst, size, err := up.Put(t.Context(), ocispec.Descriptor{}, strings.NewReader("content"))
	if err != nil || size != 7 {
		t.Fatalf("put %d bytes, %v", size, err)
	}
	for want, blob := range map[bool]ocispec.Descriptor{true: {Digest: dgst, Size: 7}, false: {Digest: dgst, Size: 8}} {
		if has, err := up.Has(t.Context(), blob); err != nil || has != want {
			t.Errorf("%d bytes: %v, %v", blob.Size, has, err)
		}
	}
	boom := errors.New("boom")
	if _, _, err := up.Put(t.Context(), ocispec.Descriptor{}, io.MultiReader(strings.NewReader("x"), failing{boom})); !errors.Is(err, boom) {
		t.Errorf("error %v, want %v", err, boom)
	}
	bad := ocispec.Descriptor{Digest: digest.FromString("other"), Size: 7}
	if _, _, err := up.Put(t.Context(), bad, blobs.Verified(io.NopCloser(strings.NewReader("content")), bad)); !errors.Is(err, blobs.ErrMismatch) {
		t.Errorf("error %v, want %v", err, blobs.ErrMismatch)
	}
	if has, err := up.Has(t.Context(), bad); err != nil || has {
		t.Errorf("what was not what it was said to be is there: %v, %v", has, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
