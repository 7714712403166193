package diff

import (
	"hash/crc64"
	"math/rand/v2"
	"testing"
)

func TestUpdateCRC(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	long := make([]byte, 1<<12)
	for i := range long {
		long[i] = byte(random.Uint32())
	}
	for n := range len(long) {
		for _, crc := range []uint64{0, 1, 1 << 63, ^uint64(0), random.Uint64()} {
			p := long[n/2 : n]
			if n%2 == 0 {
				p = long[:n]
			}
			if got, want := updateCRC(crc, p), crc64.Update(crc, crcTable, p); got != want {
				t.Fatalf("%d bytes after %x: %x, want %x", len(p), crc, got, want)
			}
		}
	}
	// Every single bit.
	for bit := range 8 * 200 {
		p := make([]byte, 200)
		p[bit/8] = 1 << (bit % 8)
		if got, want := updateCRC(0, p), crc64.Update(0, crcTable, p); got != want {
			t.Fatalf("bit %d: %x, want %x", bit, got, want)
		}
	}
}

func FuzzUpdateCRC(f *testing.F) {
	f.Add(uint64(0), make([]byte, 100))
	f.Fuzz(func(t *testing.T, crc uint64, p []byte) {
		if got, want := updateCRC(crc, p), crc64.Update(crc, crcTable, p); got != want {
			t.Errorf("%x, want %x", got, want)
		}
	})
}

func BenchmarkUpdateCRC(b *testing.B) {
	p := make([]byte, chunkSize)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		updateCRC(0, p)
	}
}
