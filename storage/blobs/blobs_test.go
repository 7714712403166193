package blobs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
)

// plainTar returns a layer with one file.
func plainTar(t *testing.T, content string) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	if err := tw.WriteHeader(&tar.Header{Name: "file", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(1700000000, 0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(tw, content); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// fakeStore has one layer and counts its openings.
type fakeStore struct {
	data  []byte
	err   error
	opens int
	open  int
}

func (s *fakeStore) Open(string) (io.ReadCloser, error) {
	s.opens++
	s.open++
	var r io.Reader = bytes.NewReader(s.data)
	if s.err != nil {
		r = io.MultiReader(bytes.NewReader(s.data[:len(s.data)/2]), failing{s.err})
	}
	return &tracked{r, s}, nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type tracked struct {
	io.Reader
	s *fakeStore
}

func (r *tracked) Close() error {
	r.s.open--
	return nil
}

func (s *fakeStore) layer() storage.Layer {
	return storage.Layer{ID: "layer", DiffID: digest.FromBytes(s.data), Size: int64(len(s.data))}
}

// shelf is a Sink that keeps its blobs in memory.
type shelf struct {
	mu   sync.Mutex
	have map[digest.Digest][]byte
	fail error
	// lazy, if not 0, is the number of bytes after which the sink stops reading and
	// reports success.
	lazy int
}

func (s *shelf) Has(_ context.Context, blob ocispec.Descriptor) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.have[blob.Digest]
	return ok, nil
}

func (s *shelf) Put(_ context.Context, blob ocispec.Descriptor, r io.Reader) (digest.Digest, int64, error) {
	if s.lazy > 0 {
		r = io.LimitReader(r, int64(s.lazy))
	}
	data, err := io.ReadAll(r)
	if err != nil || s.fail != nil {
		return "", 0, errors.Join(s.fail, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.have == nil {
		s.have = map[digest.Digest][]byte{}
	}
	s.have[digest.FromBytes(data)] = data
	return digest.FromBytes(data), int64(len(data)), nil
}

func (s *shelf) Parallel() int { return 2 }

func deliver(t *testing.T, m *Maker, w Wanted, to Sink) Layer {
	t.Helper()
	l, err := m.Deliver(t.Context(), w, to)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDeliver(t *testing.T) {
	epoch := time.Unix(1600000000, 0)
	three := 3
	for name, w := range map[string]Wanted{
		"default": {}, "gzip": {Form: Form{Type: Gzip, Level: &three}}, "zstd": {Form: Form{Type: Zstd}},
		"zstd of the family": {Form: Form{Type: Zstd, Family: true}}, "estargz": {Form: Form{Type: EStargz}},
		"uncompressed": {Form: Form{Type: Uncompressed}}, "clamped": {Form: Form{Type: Uncompressed}, Epoch: &epoch}, "clamped gzip": {Epoch: &epoch},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := &fakeStore{data: plainTar(t, strings.Repeat("some content ", 300_000))}
			w.Layer = s.layer()
			m := &Maker{Open: s.Open, Memory: OpenMemory(dir)}
			first, other := &shelf{}, &shelf{}
			made := deliver(t, m, w, first)
			if got := first.have[made.Desc.Digest]; int64(len(got)) != made.Desc.Size {
				t.Fatalf("the sink has %d bytes, want %d", len(got), made.Desc.Size)
			}
			// Another process must find the blob in the sink, and must not read the
			// layer.
			m = &Maker{Open: s.Open, Memory: OpenMemory(dir)}
			opens := s.opens
			again := deliver(t, m, w, first)
			if s.opens != opens {
				t.Error("a layer that was made and is there was read again")
			}
			if fmt.Sprint(again) != fmt.Sprint(made) {
				t.Errorf("remembered %+v, made %+v", again, made)
			}
			// A sink without the blob must get the same blob again.
			if deliver(t, m, w, other); !bytes.Equal(other.have[made.Desc.Digest], first.have[made.Desc.Digest]) {
				t.Error("the same layer gave another blob")
			}
			r, err := m.Read(t.Context(), w, made.Desc)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(data, first.have[made.Desc.Digest]) {
				t.Errorf("read %d other bytes, %v", len(data), err)
			}
			if s.open != 0 {
				t.Errorf("%d layers were left open", s.open)
			}
		})
	}
}

// The digest in the Memory must not be trusted for a blob that is sent.
func TestDeliverCorrectsTheMemory(t *testing.T) {
	s := &fakeStore{data: plainTar(t, "content")}
	w := Wanted{Layer: s.layer()}
	m := &Maker{Open: s.Open, Memory: OpenMemory(t.TempDir())}
	made := deliver(t, m, w, &shelf{})
	wrong := made
	wrong.Desc.Digest, wrong.Desc.Size = digest.FromString("wrong"), 5
	if err := m.Memory.put(w.key(), wrong); err != nil {
		t.Fatal(err)
	}
	if got := deliver(t, m, w, &shelf{}); got.Desc.Digest != made.Desc.Digest {
		t.Errorf("delivered %s, want %s", got.Desc.Digest, made.Desc.Digest)
	}
	if got, ok := m.Memory.find(w.key()); !ok || got.Desc.Digest != made.Desc.Digest {
		t.Errorf("remembered %s, want %s", got.Desc.Digest, made.Desc.Digest)
	}
}

func TestDeliverFails(t *testing.T) {
	boom := errors.New("boom")
	content := strings.Repeat("some content ", 300_000)
	for name, test := range map[string]struct {
		store, sink error
		lazy        int
		want        error
	}{
		"the layer cannot be read":         {store: boom, want: boom},
		"the sink fails":                   {sink: boom, want: boom},
		"the sink leaves the rest unread":  {lazy: 100, want: errShort},
		"the layer and the sink both fail": {store: boom, sink: errors.New("other"), want: boom},
	} {
		for _, form := range []Form{{Type: Gzip}, {Type: Zstd}, {Type: EStargz}} {
			t.Run(name+" "+form.Type, func(t *testing.T) {
				s := &fakeStore{data: plainTar(t, content), err: test.store}
				m := &Maker{Open: s.Open, Memory: OpenMemory(t.TempDir())}
				w := Wanted{Layer: s.layer(), Form: form}
				if _, err := m.Deliver(t.Context(), w, &shelf{fail: test.sink, lazy: test.lazy}); !errors.Is(err, test.want) {
					t.Errorf("error %v, want %v", err, test.want)
				}
				if _, ok := m.Memory.find(w.key()); ok {
					t.Error("a blob that was not written is remembered")
				}
				if s.open != 0 {
					t.Error("the layer was left open")
				}
			})
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(boom)
	s := &fakeStore{data: plainTar(t, content)}
	if _, err := (&Maker{Open: s.Open}).Deliver(ctx, Wanted{Layer: s.layer()}, &shelf{}); !errors.Is(err, boom) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestMemory(t *testing.T) {
	dir := t.TempDir()
	l := Layer{DiffID: digest.FromString("x"), Desc: ocispec.Descriptor{Digest: digest.FromString("y"), Size: 3}}
	m := OpenMemory(dir)
	if err := m.Publish(l); err != nil {
		t.Fatal(err)
	}
	if got, ok := OpenMemory(dir).Published(l.DiffID); !ok || got.Desc.Digest != l.Desc.Digest {
		t.Errorf("found %+v, %v", got, ok)
	}
	// Half a file, a file of another key and an empty file are not valid entries.
	path := m.path(published(l.DiffID))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{data[:len(data)/2], bytes.Replace(data, []byte("published"), []byte("publushed"), 1), nil, bytes.Replace(data, []byte("sha256:"), []byte("../../:"), 2)} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok := OpenMemory(dir).Published(l.DiffID); ok {
			t.Errorf("%q gave %+v", bad, got)
		}
	}
	// If the directory is not writable, the process must still remember the entry.
	m = OpenMemory(filepath.Join(dir, "missing"))
	if err := m.Publish(l); err == nil {
		t.Error("no error")
	}
	if _, ok := m.Published(l.DiffID); !ok {
		t.Error("the process forgot")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for i := range maxEntries {
		path := filepath.Join(dir, fmt.Sprint("entry", i))
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	m := OpenMemory(dir)
	l := Layer{DiffID: digest.FromString("x"), Desc: ocispec.Descriptor{Digest: digest.FromString("y")}}
	if err := m.Publish(l); err != nil {
		t.Fatal(err)
	}
	// Publish writes two entries. The first one causes the removal of old entries.
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != keptEntries+1 {
		t.Errorf("%d entries, %v, want %d", len(entries), err, keptEntries+1)
	}
	if _, ok := OpenMemory(dir).Published(l.DiffID); !ok {
		t.Error("the newest entry was forgotten")
	}
}

func TestVerified(t *testing.T) {
	const content = "content"
	good := ocispec.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	for name, test := range map[string]struct {
		sent string
		blob ocispec.Descriptor
		ok   bool
	}{
		"right":      {content, good, true},
		"short":      {content[1:], good, false},
		"long":       {content + "x", good, false},
		"other":      {"CONTENT", good, false},
		"wrong size": {content, ocispec.Descriptor{Digest: good.Digest, Size: 3}, false},
		"no digest":  {content, ocispec.Descriptor{Digest: "sha256:../x", Size: good.Size}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := io.ReadAll(Verified(io.NopCloser(strings.NewReader(test.sent)), test.blob))
			if (err == nil) != test.ok {
				t.Errorf("error %v, want none: %v", err, test.ok)
			}
		})
	}
}

func TestTarHeader(t *testing.T) {
	for _, size := range []int64{0, 1, 511, 512, 8<<30 - 1, 8 << 30, 1 << 42} {
		data, err := fileHeader(Name(digest.FromString("x")), 0o444, size)
		if err != nil {
			t.Fatal(err)
		}
		h, err := tar.NewReader(bytes.NewReader(data)).Next()
		if err != nil || h.Size != size || h.Mode != 0o444 {
			t.Errorf("%d: %+v, %v", size, h, err)
		}
	}
}

// In a file that was opened for appending, the header cannot be written last.
func TestTarAppends(t *testing.T) {
	path := filepath.Join(t.TempDir(), "archive.tar")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	archive := NewTar(f)
	archive.TempDir = t.TempDir()
	if _, _, err := archive.Put(t.Context(), ocispec.Descriptor{}, strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(archive.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tr := tar.NewReader(bytes.NewReader(data))
	h, err := tr.Next()
	if err != nil || h.Name != Name(digest.FromString("content")) {
		t.Fatalf("%+v, %v", h, err)
	}
	if got, err := io.ReadAll(tr); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
}
