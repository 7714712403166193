package local

import (
	"bytes"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// aged waits until new files are old enough for the index.
func aged(t testing.TB) {
	t.Helper()
	time.Sleep(settle + 50*time.Millisecond)
}

func digestWith(t testing.TB, dir, index string) digest.Digest {
	t.Helper()
	x := OpenIndex(index)
	d, err := open(t, Options{Dir: dir, Index: x}).Digest(t.Context(), Selection{})
	must(t, err)
	must(t, x.Close())
	return d
}

func recordsOf(t testing.TB, index string) []record {
	t.Helper()
	x := openIndexFile(index)
	t.Cleanup(x.close)
	return slices.Collect(x.all())
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
	if n := len(recordsOf(t, index)); n != 2 {
		t.Fatalf("%d records, want 2", n)
	}
	// All files are in the index, so no file is opened.
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
	if n := len(recordsOf(t, index)); n != 12 {
		t.Errorf("%d records, want 12: builds overwrite each other's", n)
	}
	whole, err := os.ReadFile(index)
	must(t, err)
	want := digestWith(t, dirs[0], index)
	for name, damaged := range map[string][]byte{
		"empty": {}, "cut": whole[:len(whole)/2], "zeros": make([]byte, len(whole)),
		"flipped": bytes.Replace(whole, whole[blockSize+40:blockSize+44], []byte{1, 2, 3, 4}, 1), "longer": append(bytes.Clone(whole), 0),
		"counts too many": slices.Concat(whole[:blockSize+4], []byte{255, 255, 255, 255}, whole[blockSize+8:]),
		"magic alone":     append(bytes.Clone(indexMagic), make([]byte, 2*blockSize-len(indexMagic))...),
	} {
		must(t, os.WriteFile(index, damaged, 0o600))
		if n := len(recordsOf(t, index)); n != 0 {
			t.Errorf("%s: damage is not seen: %d records", name, n)
		}
		if got := digestWith(t, dirs[0], index); got != want {
			t.Errorf("%s: digest differs", name)
		}
		if n := len(recordsOf(t, index)); n != 3 {
			t.Errorf("%s: %d records after the repair", name, n)
		}
	}
}

// written writes records to a file and opens it.
func written(t testing.TB, records iter.Seq[record]) *indexFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "index")
	must(t, writeIndex(path, records))
	x := openIndexFile(path)
	t.Cleanup(x.close)
	return x
}

func TestMergeBounds(t *testing.T) {
	numbered := func(from, to uint64, used func(uint64) uint32) map[inode]record {
		m := map[inode]record{}
		for i := from; i < to; i++ {
			m[inode{i % 3, i}] = record{id: inode{i % 3, i}, used: used(i), size: int64(i)}
		}
		return m
	}
	early := func(i uint64) uint32 { return uint32(i / 100) }
	saved := written(t, merge(nil, numbered(0, 1000, early), 1<<20))
	late := func(uint64) uint32 { return 50 }
	for limit, want := range map[int]func(i uint64) bool{
		1 << 20: func(uint64) bool { return true },
		100:     func(i uint64) bool { return i >= 950 },
		200:     func(i uint64) bool { return i >= 800 },
	} {
		merged := written(t, merge(saved, numbered(950, 1050, late), limit))
		n := 0
		for i := range uint64(1050) {
			r, ok := merged.find(inode{i % 3, i})
			if ok {
				n++
			}
			if ok && (r.size != int64(i) || (i >= 950) != (r.used == 50)) || ok && !want(i) || limit > 200 && !ok {
				t.Errorf("limit %d: record %d: %v %+v", limit, i, ok, r)
			}
		}
		if n != min(limit, 1050) {
			t.Errorf("limit %d: %d records", limit, n)
		}
		if _, ok := merged.find(inode{1 << 40, 1}); ok {
			t.Error("what is not there was found")
		}
	}
}

// TestIndexInParts writes the records in several parts, because they exceed the limit in
// memory.
func TestIndexInParts(t *testing.T) {
	t.Parallel()
	names := make([]string, 30)
	for i := range names {
		names[i] = "d" + strconv.Itoa(i%4) + "/f" + strconv.Itoa(i)
	}
	dir, index := plant(t, names...), filepath.Join(t.TempDir(), "index")
	aged(t)
	x := OpenIndex(index)
	x.maxFresh = 7
	if _, err := open(t, Options{Dir: dir, Index: x}).Digest(t.Context(), Selection{}); err != nil {
		t.Fatal(err)
	}
	if len(x.fresh) >= 7 {
		t.Errorf("%d records in memory", len(x.fresh))
	}
	must(t, x.Close())
	if n := len(recordsOf(t, index)); n != 30 {
		t.Errorf("%d records, want 30", n)
	}
}

func FuzzIndexFile(f *testing.F) {
	one := record{id: inode{1, 2}, ctime: 3, size: 5}
	two := one
	two.id.ino = 9
	path := filepath.Join(f.TempDir(), "seed")
	must(f, writeIndex(path, slices.Values([]record{one, two})))
	seed, err := os.ReadFile(path)
	must(f, err)
	f.Add(seed)
	f.Add(indexMagic)
	f.Fuzz(func(t *testing.T, data []byte) {
		x := newIndexFile(data)
		if x == nil {
			return
		}
		var last inode
		for r := range merge(x, nil, 1<<30) {
			if r.id.compare(last) < 0 {
				t.Errorf("%v comes behind %v", r.id, last)
			}
			last = r.id
			if got, ok := x.find(r.id); ok && got.id != r.id {
				t.Errorf("%v was found for %v", got, r)
			}
		}
	})
}

// BenchmarkDigest hashes 20,000 unchanged files that are in the index. It also runs with
// an ignore file of twenty lines that match none of the files.
func BenchmarkDigest(b *testing.B) {
	dir := b.TempDir()
	for i := range 20000 {
		write(b, dir, filepath.Join("d"+string(rune('a'+i%20)), "f"+time.Duration(i).String()), "content")
	}
	index := filepath.Join(b.TempDir(), "index")
	aged(b)
	digestWith(b, dir, index)
	ignore := []string{"**/*.md", "*.log", "node_modules", ".git", "build/*", "!build/keep", "**/cache"}
	for i := range 13 {
		ignore = append(ignore, "other/"+strconv.Itoa(i))
	}
	for name, patterns := range map[string][]string{"plain": nil, "ignore": ignore} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				x := OpenIndex(index)
				_, err := open(b, Options{Dir: dir, Index: x, ExcludePatterns: patterns}).Digest(b.Context(), Selection{})
				must(b, err)
				must(b, x.Close())
			}
		})
	}
}
