package diff

import (
	"encoding/binary"
	"hash/crc64"
)

// crcTable is the table of the polynomial that tar-split uses for checksums.
var crcTable = crc64.MakeTable(crc64.ISO)

// crcBlock is the number of bytes that updateCRC processes at a time: one word for each
// of four lanes.
const crcBlock = 4 * 8

// updateCRC is crc64.Update for the ISO polynomial, but almost three times as fast. It
// reaches 5.2 GB/s, compared with 1.9 for crc64 and 1.75 for SHA-256. With crc64,
// checksums took a third of the time of packing a large file.
//
// The polynomial P = x^64 + x^4 + x^3 + x + 1 has only small terms besides the first.
// Multiplying by a power of x^64 modulo P therefore takes only a few shifts. x^64 is r =
// x^4 + x^3 + x + 1, and x^256 is r^4 = x^16 + x^12 + x^4 + 1. The bits are reflected, so
// multiplying by x shifts to the right. Each of the four lanes processes every fourth
// word; this keeps the processor busy.
func updateCRC(crc uint64, p []byte) uint64 {
	if len(p) < 2*crcBlock {
		return crc64.Update(crc, crcTable, p)
	}
	a, b, c, d := word(p, 0), word(p, 1), word(p, 2), word(p, 3)
	a ^= ^crc
	p = p[crcBlock:]
	for len(p) >= crcBlock {
		a = timesX256(a) ^ word(p, 0)
		b = timesX256(b) ^ word(p, 1)
		c = timesX256(c) ^ word(p, 2)
		d = timesX256(d) ^ word(p, 3)
		p = p[crcBlock:]
	}
	sum := timesX64(timesX64(timesX64(timesX64(a)^b)^c) ^ d)
	return crc64.Update(^sum, crcTable, p)
}

func word(p []byte, i int) uint64 { return binary.LittleEndian.Uint64(p[8*i:]) }

// timesX64 returns t times x^64 modulo P. The bits that timesR shifts out are multiplied
// by r once more.
func timesX64(t uint64) uint64 {
	return timesR(t) ^ timesR(t<<63^t<<61^t<<60)
}

func timesX256(t uint64) uint64 {
	return t ^ t>>4 ^ t>>12 ^ t>>16 ^ timesR(t<<60^t<<52^t<<48)
}

// timesR returns t times r without the bits that are shifted out.
func timesR(t uint64) uint64 { return t ^ t>>1 ^ t>>3 ^ t>>4 }
