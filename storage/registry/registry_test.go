package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/registry"
	"github.com/shale-build/shale/storage/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m, nil)) }

// server is a docker-registry on loopback.
type server struct {
	addr string
	log  *syncBuffer
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// reach waits until count returns at least want, because a registry logs after it has
// answered.
func (b *syncBuffer) reach(want int, parts ...string) int {
	for range 100 {
		if b.count(parts...) >= want {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return b.count(parts...)
}

// count returns the number of logged requests that contain all parts.
func (b *syncBuffer) count(parts ...string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
lines:
	for line := range strings.SplitSeq(b.buf.String(), "\n") {
		for _, p := range parts {
			if !strings.Contains(line, p) {
				continue lines
			}
		}
		n++
	}
	return n
}

// serve starts a registry. If password is not empty, it requires the login user:password.
func serve(t *testing.T, password string) *server {
	t.Helper()
	exe, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("SHALE_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String(), log: &syncBuffer{}}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("version: 0.1\nlog:\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n", filepath.Join(dir, "data"), s.addr)
	if password != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		htpasswd := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(htpasswd, []byte("user:"+string(hash)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		conf += "auth:\n  htpasswd:\n    realm: test\n    path: " + htpasswd + "\n"
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, exe, "serve", file)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	for range 200 {
		resp, err := http.Get("http://" + s.addr + "/v2/")
		if err == nil {
			_ = resp.Body.Close()
			return s
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("docker-registry does not answer:\n%s", s.log.buf.String())
	return nil
}

func client(t *testing.T, s *storage.Store, change func(*registry.Options)) *registry.Client {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_DATA_HOME", dir)
	conf := filepath.Join(dir, "registries.conf")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	verify := false
	opts := registry.Options{TLSVerify: &verify, AuthFile: filepath.Join(dir, "auth.json"), RegistriesConf: conf}
	if change != nil {
		change(&opts)
	}
	return registry.New(s, opts)
}

// source returns an image with two layers, one of which has some size.
func source(t *testing.T, s *storage.Store, note string) registry.Source {
	t.Helper()
	var layers []storage.Layer
	parent := ""
	for i, content := range [][]byte{bytes.Repeat([]byte("all the same\n"), 200_000), []byte(note)} {
		l, err := s.CreateLayer(t.Context(), parent, storetest.Fill(func(upper string) error {
			path, at := filepath.Join(upper, fmt.Sprintf("file%d", i)), time.Unix(1700000000, 0)
			return errors.Join(os.WriteFile(path, content, 0o600), os.Chtimes(path, at, at))
		}))
		if err != nil {
			t.Fatal(err)
		}
		layers, parent = append(layers, l), l.ID
	}
	config, err := json.Marshal(ocispec.Image{
		Author: note, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layers[0].DiffID, layers[1].DiffID}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return registry.Source{Config: config, Layers: layers, Annotations: map[string]string{"note": note}}
}

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

func push(t *testing.T, c *registry.Client, src registry.Source, dest string, opts registry.PushOptions) ocispec.Descriptor {
	t.Helper()
	desc, err := c.Push(t.Context(), src, dest, opts)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

func manifestOf(t *testing.T, c *registry.Client, ref string) (registry.Resolved, ocispec.Manifest) {
	t.Helper()
	res, err := c.Resolve(t.Context(), ref, amd64)
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(res.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	return res, m
}

// recorder is a Progress that records the blobs that are done.
type recorder struct {
	mu   sync.Mutex
	done map[string]bool
}

func (r *recorder) Update(id string, _, _ int64, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		r.done = map[string]bool{}
	}
	r.done[id] = r.done[id] || done
}

func TestPushPull(t *testing.T) {
	reg := serve(t, "")
	tests := map[string]struct {
		docker                      bool
		compression                 string
		wantManifest, wantLayerType string
	}{
		"oci gzip":         {false, "", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerGzip},
		"oci zstd":         {false, registry.Zstd, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerZstd},
		"oci uncompressed": {false, registry.Uncompressed, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayer},
		"docker gzip":      {true, registry.Gzip, "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"},
		"docker zstd":      {true, registry.Zstd, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerZstd},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := storetest.Open(t, storetest.NewRoots(t))
			c := client(t, s, nil)
			src := source(t, s, name)
			src.Docker = test.docker
			dest := reg.addr + "/" + strings.ReplaceAll(name, " ", "-")
			progress := &recorder{}
			desc := push(t, c, src, dest, registry.PushOptions{Compression: test.compression, Tags: []string{"two", "three"}, Progress: progress})
			if !progress.done[src.Layers[0].DiffID.String()] {
				t.Errorf("progress = %v", progress.done)
			}
			for _, tag := range []string{"", ":latest", ":two", ":three", "@" + desc.Digest.String()} {
				res, m := manifestOf(t, c, dest+tag)
				if res.Digest != desc.Digest || res.MediaType != test.wantManifest || m.Layers[0].MediaType != test.wantLayerType {
					t.Errorf("%s: %s %s %s, want %s %s %s", tag, res.Digest, res.MediaType, m.Layers[0].MediaType, desc.Digest, test.wantManifest, test.wantLayerType)
				}
				if !bytes.Equal(res.Config, src.Config) {
					t.Errorf("config = %s", res.Config)
				}
				if want := reg.addr + "/" + strings.ReplaceAll(name, " ", "-") + "@" + desc.Digest.String(); res.Ref != want {
					t.Errorf("Ref = %s, want %s", res.Ref, want)
				}
			}

			other := storetest.Open(t, storetest.NewRoots(t))
			img, err := client(t, other, nil).Pull(t.Context(), dest+":two", registry.PullOptions{Platform: amd64, Progress: &recorder{}})
			if err != nil {
				t.Fatal(err)
			}
			if img.ID != digest.FromBytes(src.Config).Encoded() || !slices.Equal(img.Names, []string{dest + ":two"}) {
				t.Errorf("pulled %+v", img)
			}
			checkLayers(t, other, img, src)
			pinned := dest + "@" + desc.Digest.String()
			again, err := client(t, other, nil).Pull(t.Context(), dest+":three@"+desc.Digest.String(), registry.PullOptions{Platform: amd64})
			if err != nil || !slices.Contains(again.Names, pinned) {
				t.Errorf("pulled by digest %+v, %v", again, err)
			}
		})
	}
}

func checkLayers(t *testing.T, s *storage.Store, img storage.Image, want registry.Source) {
	t.Helper()
	chain, err := s.Chain(img.TopLayer)
	if err != nil || len(chain) != len(want.Layers) {
		t.Fatalf("chain = %+v, %v", chain, err)
	}
	for i, l := range chain {
		r, err := s.OpenDiff(l.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if l.DiffID != want.Layers[i].DiffID {
			t.Errorf("layer %d is %s, want %s", i, l.DiffID, want.Layers[i].DiffID)
		}
	}
}

// The layers of an image that was built here have other IDs than the transport gives
// them.
func TestPullWhatWasBuiltHere(t *testing.T) {
	reg := serve(t, "")
	s := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, s, nil)
	src := source(t, s, "here")
	m, err := json.Marshal(ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(src.Config), Size: int64(len(src.Config))},
		Layers:    []ocispec.Descriptor{},
	})
	if err != nil {
		t.Fatal(err)
	}
	m = bytes.Replace(m, []byte("{"), []byte(`{"schemaVersion":2,`), 1)
	m = bytes.Replace(m, []byte(`"schemaVersion":2,"schemaVersion":0,`), []byte(`"schemaVersion":2,`), 1)
	img, err := s.CreateImage(t.Context(), storage.ImageSpec{Config: src.Config, Manifest: m, TopLayer: src.Layers[1].ID, Names: []string{"localhost/built:1"}})
	if err != nil {
		t.Fatal(err)
	}
	dest := reg.addr + "/built:1"
	push(t, c, src, dest, registry.PushOptions{})
	blobs := reg.log.count("GET", "/blobs/", src.Layers[0].DiffID.Encoded())
	pulled, err := c.Pull(t.Context(), dest, registry.PullOptions{Platform: amd64})
	if err != nil {
		t.Fatal(err)
	}
	if pulled.ID != img.ID || pulled.TopLayer != img.TopLayer || !slices.Contains(pulled.Names, dest) || !slices.Contains(pulled.Names, "localhost/built:1") {
		t.Errorf("pulled %+v, have %+v", pulled, img)
	}
	if n := reg.log.count("GET", "/blobs/", src.Layers[0].DiffID.Encoded()); n != blobs {
		t.Errorf("a layer that is here was fetched")
	}
}

func TestUnchangedLayersAreNotSentAgain(t *testing.T) {
	reg := serve(t, "")
	s := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, s, nil)
	uploads := func(want int) int { return reg.log.reach(want, `"PUT /v2/`, "/blobs/uploads/") }
	push(t, c, source(t, s, "one"), reg.addr+"/a:1", registry.PushOptions{})
	first := uploads(3)
	if first != 3 {
		t.Errorf("%d uploads at first, want 2 layers and a config", first)
	}
	push(t, c, source(t, s, "two"), reg.addr+"/a:2", registry.PushOptions{})
	if n := uploads(first+2) - first; n != 2 {
		t.Errorf("%d uploads for the changed image, want 1 layer and a config", n)
	}
	push(t, c, source(t, s, "two"), reg.addr+"/b:1", registry.PushOptions{})
	if reg.log.reach(2, "POST", "/v2/b/blobs/uploads/?", "mount=") < 2 {
		t.Error("layers were not mounted from another repository")
	}
}

func TestPullConcurrently(t *testing.T) {
	reg := serve(t, "")
	s := storetest.Open(t, storetest.NewRoots(t))
	src := source(t, s, "many")
	push(t, client(t, s, nil), src, reg.addr+"/many", registry.PushOptions{})
	other := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, other, nil)
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = c.Pull(t.Context(), reg.addr+"/many", registry.PullOptions{Platform: amd64}) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if layers, err := other.Layers(); err != nil || len(layers) != 2 {
		t.Errorf("%d layers, %v, want 2", len(layers), err)
	}
}

func TestErrors(t *testing.T) {
	reg, locked := serve(t, ""), serve(t, "secret")
	s := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, s, nil)
	strict := true
	secure := client(t, s, func(o *registry.Options) { o.TLSVerify = &strict })
	src := source(t, s, "x")
	resolve := func(c *registry.Client, ref string) error {
		_, err := c.Resolve(t.Context(), ref, amd64)
		return err
	}
	tests := map[string]struct {
		err  error
		is   error
		text string
	}{
		"not found":      {resolve(c, reg.addr+"/none:1"), registry.ErrNotFound, reg.addr + "/none:1"},
		"resolve locked": {resolve(c, locked.addr+"/x:1"), registry.ErrUnauthorized, "shale login " + locked.addr},
		"plain http":     {resolve(secure, reg.addr+"/x:1"), nil, "--tls-verify=false"},
		"bad name":       {resolve(c, "UPPER/x"), nil, "UPPER"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.err == nil || test.is != nil && !errors.Is(test.err, test.is) || !strings.Contains(test.err.Error(), test.text) {
				t.Errorf("error = %v, want %v, %q", test.err, test.is, test.text)
			}
		})
	}
	if _, err := c.Push(t.Context(), src, locked.addr+"/x", registry.PushOptions{}); !errors.Is(err, registry.ErrUnauthorized) {
		t.Errorf("push: %v, want ErrUnauthorized", err)
	}
	src.Layers = src.Layers[:1]
	if _, err := c.Push(t.Context(), src, reg.addr+"/x", registry.PushOptions{}); err == nil {
		t.Error("an image whose config names another layer was pushed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Pull(ctx, reg.addr+"/x", registry.PullOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled pull: %v", err)
	}
}

func TestLogin(t *testing.T) {
	reg := serve(t, "secret")
	s := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, s, nil)
	err := c.Login(t.Context(), registry.Login{Registry: reg.addr, Username: "user", Password: "hunter2"})
	if !errors.Is(err, registry.ErrUnauthorized) || strings.Contains(fmt.Sprint(err), "hunter2") {
		t.Errorf("wrong password: %v", err)
	}
	if name, err := c.LoggedIn(reg.addr); name != "" || err != nil {
		t.Errorf("logged in as %q, %v", name, err)
	}
	if err := c.Login(t.Context(), registry.Login{Registry: "https://" + reg.addr + "/", Username: "user", Password: "secret"}); err != nil {
		t.Fatal(err)
	}
	if name, err := c.LoggedIn(reg.addr); name != "user" || err != nil {
		t.Errorf("logged in as %q, %v", name, err)
	}
	push(t, c, source(t, s, "x"), reg.addr+"/x", registry.PushOptions{})
	if err := c.Logout(reg.addr); err != nil {
		t.Fatal(err)
	}
	if err := c.Logout(reg.addr); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("log out twice: %v", err)
	}
	if _, err := c.Resolve(t.Context(), reg.addr+"/x", amd64); !errors.Is(err, registry.ErrUnauthorized) {
		t.Errorf("after logging out: %v", err)
	}
}

func TestPolicy(t *testing.T) {
	reg := serve(t, "")
	s := storetest.Open(t, storetest.NewRoots(t))
	src := source(t, s, "x")
	push(t, client(t, s, nil), src, reg.addr+"/x", registry.PushOptions{})
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"reject"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	other := storetest.Open(t, storetest.NewRoots(t))
	opts := func(o *registry.Options) { o.SignaturePolicy = policy }
	if _, err := client(t, other, opts).Pull(t.Context(), reg.addr+"/x", registry.PullOptions{Platform: amd64}); err == nil || !strings.Contains(err.Error(), "rejected by policy") {
		t.Errorf("error = %v", err)
	}
	// A pull also fails if the store has the whole image already.
	if _, err := client(t, other, nil).Pull(t.Context(), reg.addr+"/x:latest", registry.PullOptions{Platform: amd64}); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, other, opts).Pull(t.Context(), reg.addr+"/x", registry.PullOptions{Platform: amd64}); err == nil {
		t.Error("an image that the policy rejects was accepted because it is here")
	}
}

func TestCandidates(t *testing.T) {
	tests := map[string]struct {
		conf, name string
		want       []string
		wantErr    string
	}{
		"nothing configured": {"", "alpine", []string{"docker.io/library/alpine:latest"}, ""},
		"complete":           {"", "quay.io/a/b:1", []string{"quay.io/a/b:1"}, ""},
		"tag":                {"", "me/app:1", []string{"docker.io/me/app:1"}, ""},
		"search":             {`unqualified-search-registries = ["a.example", "b.example"]`, "app:1", []string{"a.example/app:1", "b.example/app:1"}, ""},
		"alias":              {"[aliases]\n\"app\" = \"c.example/x/app\"", "app:1", []string{"c.example/x/app:1"}, ""},
		"enforcing":          {"unqualified-search-registries = [\"a.example\", \"b.example\"]\nshort-name-mode = \"enforcing\"", "app:1", nil, "a.example/app:1, b.example/app:1"},
		"invalid":            {"", "Upper", nil, "Upper"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			conf := filepath.Join(t.TempDir(), "registries.conf")
			if err := os.WriteFile(conf, []byte(test.conf), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := client(t, nil, func(o *registry.Options) { o.RegistriesConf = conf }).Candidates(test.name)
			if !slices.Equal(got, test.want) || test.wantErr == "" && err != nil || test.wantErr != "" && !strings.Contains(fmt.Sprint(err), test.wantErr) {
				t.Errorf("got %v, %v, want %v, %q", got, err, test.want, test.wantErr)
			}
		})
	}
}

// saved adds two images to a store and saves them.
func saved(t *testing.T, format string) ([]registry.Source, []byte) {
	t.Helper()
	reg := serve(t, "")
	s := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, s, nil)
	var sources []registry.Source
	var names []string
	for _, note := range []string{"one", "two"} {
		src := source(t, s, note)
		name := reg.addr + "/" + note + ":1"
		push(t, c, src, name, registry.PushOptions{})
		sources, names = append(sources, src), append(names, name)
	}
	other := storetest.Open(t, storetest.NewRoots(t))
	c = client(t, other, nil)
	for _, name := range names {
		if _, err := c.Pull(t.Context(), name, registry.PullOptions{Platform: amd64}); err != nil {
			t.Fatal(err)
		}
	}
	var archive bytes.Buffer
	if err := c.Save(t.Context(), &archive, names, registry.SaveOptions{Format: format}); err != nil {
		t.Fatal(err)
	}
	checkNoArchives(t, other)
	return sources, archive.Bytes()
}

func checkNoArchives(t *testing.T, s *storage.Store) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.GraphRoot(), "shale", "archives"))
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(entries) > 0 {
		t.Errorf("temporary files are left: %v, %v", entries, err)
	}
}

func TestSaveLoad(t *testing.T) {
	for _, format := range []string{registry.FormatOCI, registry.FormatDocker} {
		t.Run(format, func(t *testing.T) {
			sources, archive := saved(t, format)
			s := storetest.Open(t, storetest.NewRoots(t))
			c := client(t, s, nil)
			for range 2 { // the second time the registry has everything
				images, err := c.Load(t.Context(), bytes.NewReader(archive), registry.PullOptions{Platform: amd64})
				if err != nil || len(images) != 2 {
					t.Fatalf("loaded %+v, %v", images, err)
				}
				for i, img := range images {
					if len(img.Names) != 1 || !strings.HasSuffix(img.Names[0], []string{"/one:1", "/two:1"}[i]) {
						t.Errorf("image %d is called %v", i, img.Names)
					}
					checkLayers(t, s, img, sources[i])
				}
			}
			checkNoArchives(t, s)
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, s, nil)
	for name, data := range map[string]string{"empty": "", "text": "hello", "zeros": strings.Repeat("\x00", 10240)} {
		t.Run(name, func(t *testing.T) {
			if images, err := c.Load(t.Context(), strings.NewReader(data), registry.PullOptions{}); err == nil {
				t.Errorf("loaded %+v", images)
			}
			checkNoArchives(t, s)
		})
	}
}

func TestLayout(t *testing.T) {
	sources, archive := saved(t, registry.FormatOCI)
	dir := filepath.Join(t.TempDir(), "layout")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	untar := exec.CommandContext(t.Context(), "tar", "-xC", dir)
	untar.Stdin = bytes.NewReader(archive)
	if out, err := untar.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	index, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list ocispec.Index
	if err := json.Unmarshal(index, &list); err != nil {
		t.Fatal(err)
	}
	// Some tools write only a tag into this annotation.
	list.Manifests[1].Annotations = map[string]string{ocispec.AnnotationRefName: "latest"}
	if index, err = json.Marshal(list); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o600); err != nil {
		t.Fatal(err)
	}
	s := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, s, nil)
	for where, want := range map[string]registry.Source{
		dir + ":latest": sources[1], dir + "/": sources[1], dir + "@" + list.Manifests[0].Digest.String(): sources[0],
	} {
		res, err := c.ResolveLayout(t.Context(), where, amd64)
		if err != nil || !bytes.Equal(res.Config, want.Config) {
			t.Errorf("%s: %+v, %v", where, res, err)
			continue
		}
		img, err := c.PullLayout(t.Context(), where, registry.PullOptions{Platform: amd64})
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		if len(img.Names) != 0 {
			t.Errorf("%s is called %v", where, img.Names)
		}
		checkLayers(t, s, img, want)
	}
	for _, where := range []string{dir + ":none", dir + "@" + digest.FromString("x").String(), t.TempDir()} {
		if _, err := c.ResolveLayout(t.Context(), where, amd64); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", where, err)
		}
	}
}
