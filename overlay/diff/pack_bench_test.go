package diff_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/shale-build/shale/overlay/diff"
)

// BenchmarkPack packs 20,000 files of 10 kB in 400 directories, like those of many
// installed packages, and one file of 500 MB.
func BenchmarkPack(b *testing.B) {
	b.Run("20000files", func(b *testing.B) {
		dir := b.TempDir()
		data := random(b, 2*10240)
		for i := range 400 {
			sub := filepath.Join(dir, fmt.Sprintf("d%03d", i))
			if err := os.Mkdir(sub, 0o755); err != nil {
				b.Fatal(err)
			}
			for j := range 50 {
				at := (i*50 + j) % 10240
				write(b, filepath.Join(sub, fmt.Sprintf("file-%02d", j)), data[at:at+10240])
			}
		}
		benchPack(b, dir)
	})
	b.Run("500MB", func(b *testing.B) {
		dir := b.TempDir()
		f, err := os.Create(filepath.Join(dir, "big"))
		if err != nil {
			b.Fatal(err)
		}
		data := random(b, 10<<20)
		for range 50 {
			if _, err := f.Write(data); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
		benchPack(b, dir)
	})
	b.Run("empty", func(b *testing.B) { benchPack(b, b.TempDir()) })
}

func benchPack(b *testing.B, dir string) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		res, err := diff.Pack(b.Context(), diff.Options{Upper: dir, UserXattr: true})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(res.Size)
		if err := res.TarSplit.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func random(tb testing.TB, n int) []byte {
	tb.Helper()
	data := make([]byte, n)
	if _, err := rand.Read(data); err != nil {
		tb.Fatal(err)
	}
	return data
}

func write(tb testing.TB, path string, data []byte) {
	tb.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		tb.Fatal(err)
	}
}
