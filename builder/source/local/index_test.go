package local

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// aged waits until files just written are old enough to be remembered.
func aged(t testing.TB) {
	t.Helper()
	time.Sleep(settle + 50*time.Millisecond)
}

func digestWith(t testing.TB, dir, index string) digest.Digest {
	t.Helper()
	x := OpenIndex(index)
	d, err := open(t, Options{Dir: dir, Index: x}).Digest(t.Context(), Selection{})
	must(t, err)
	must(t, x.Flush())
	return d
}

func TestIndex(t *testing.T) {
	t.Parallel()
	dir, index := plant(t, "a", "sub/b"), filepath.Join(t.TempDir(), "new/index")
	young := digestWith(t, dir, index)
	if _, err := os.Stat(index); err == nil {
		t.Fatal("young files are remembered")
	}
	aged(t)
	if digestWith(t, dir, index) != young {
		t.Error("digest changed by itself")
	}
	if n := len(readIndex(index)) / recordSize; n != 2 {
		t.Fatalf("%d records, want 2", n)
	}
	// Every file is remembered now, so none is opened.
	x := OpenIndex(index)
	tree := open(t, Options{Dir: dir, Index: x})
	for _, p := range []string{"a", "sub/b"} {
		e, err := tree.Lookup(p, false)
		must(t, err)
		if !tree.remembered(e) {
			t.Errorf("%s is not remembered", p)
		}
	}
	if digestWith(t, dir, index) != young {
		t.Error("digest of remembered files differs")
	}
	write(t, dir, "a", "A")
	if digestWith(t, dir, index) == young {
		t.Error("a change of the same size is not seen")
	}
}

func TestIndexSharedAndDamaged(t *testing.T) {
	t.Parallel()
	index := filepath.Join(t.TempDir(), "index")
	dirs := make([]string, 4)
	for i := range dirs {
		dirs[i] = plant(t, "a", "b", "c")
	}
	aged(t)
	var wg sync.WaitGroup
	for _, dir := range dirs {
		wg.Go(func() { digestWith(t, dir, index) })
	}
	wg.Wait()
	if n := len(readIndex(index)) / recordSize; n != 12 {
		t.Errorf("%d records, want 12: builds overwrite each other's", n)
	}
	whole, err := os.ReadFile(index)
	must(t, err)
	want := digestWith(t, dirs[0], index)
	for name, damaged := range map[string][]byte{
		"empty": {}, "cut": whole[:len(whole)/2], "zeros": make([]byte, len(whole)),
		"flipped": bytes.Replace(whole, whole[40:44], []byte{1, 2, 3, 4}, 1), "longer": append(bytes.Clone(whole), 0),
	} {
		must(t, os.WriteFile(index, damaged, 0o600))
		if readIndex(index) != nil {
			t.Errorf("%s: damage is not seen", name)
		}
		if got := digestWith(t, dirs[0], index); got != want {
			t.Errorf("%s: digest differs", name)
		}
	}
}

func TestMergeBounds(t *testing.T) {
	fresh := map[inode]record{}
	for i := range uint64(100) {
		id := inode{1, i}
		fresh[id] = record{id: id, used: int64(i), size: int64(i)}
	}
	merged := merge(nil, fresh, 10)
	if len(merged) != 10*recordSize {
		t.Fatalf("%d records", len(merged)/recordSize)
	}
	for i := range uint64(100) {
		r, ok := find(merged, inode{1, i})
		if ok != (i >= 90) || (ok && r.size != int64(i)) {
			t.Errorf("record %d: %v %v", i, r, ok)
		}
	}
}

func FuzzParseIndex(f *testing.F) {
	one := record{id: inode{1, 2}, ctime: unix.Timespec{Sec: 3, Nsec: 4}, size: 5}
	two := one
	two.id.ino = 9
	path := filepath.Join(f.TempDir(), "seed")
	must(f, writeIndex(path, merge(nil, map[inode]record{one.id: one, two.id: two}, 10)))
	seed, err := os.ReadFile(path)
	must(f, err)
	f.Add(seed)
	f.Add(indexMagic)
	f.Fuzz(func(t *testing.T, data []byte) {
		records := parseIndex(data)
		if again := merge(records, nil, 1<<30); !bytes.Equal(again, records) {
			t.Error("records do not survive being written again")
		}
		for off := 0; off < len(records); off += recordSize {
			want := decode(records[off:])
			if got, ok := find(records, want.id); !ok || got != want {
				t.Errorf("record %v is not found: %v", want, got)
			}
		}
	})
}

// BenchmarkDigest hashes 20,000 unchanged files that the index knows.
func BenchmarkDigest(b *testing.B) {
	dir := b.TempDir()
	for i := range 20000 {
		write(b, dir, filepath.Join("d"+string(rune('a'+i%20)), "f"+time.Duration(i).String()), "content")
	}
	index := filepath.Join(b.TempDir(), "index")
	aged(b)
	digestWith(b, dir, index)
	for b.Loop() {
		digestWith(b, dir, index)
	}
}
