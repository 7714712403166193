package diff

import (
	"encoding/binary"
	"hash/crc64"
)

// crcTable is the polynomial of tar-split's checksums.
var crcTable = crc64.MakeTable(crc64.ISO)

// crcBlock is what updateCRC takes at a time: a word for each of four lanes.
const crcBlock = 4 * 8

// updateCRC is crc64.Update with the ISO polynomial, almost three times as fast (5.2
// GB/s where that has 1.9 and SHA-256 1.75): packing a large file was checksums for
// a third.
//
// In P = x^64 + x^4 + x^3 + x + 1 all but one term is small, so that multiplying by
// a power of x^64 modulo P takes a few shifts: x^64 is r = x^4 + x^3 + x + 1, and
// x^256 is r^4 = x^16 + x^12 + x^4 + 1. Bits are reflected: multiplying by x shifts
// to the right. Four lanes, each of every fourth word, keep the processor busy.
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

// timesX64 is t times x^64 modulo P. What is shifted out is to be multiplied by it
// once more.
func timesX64(t uint64) uint64 {
	return timesR(t) ^ timesR(t<<63^t<<61^t<<60)
}

func timesX256(t uint64) uint64 {
	return t ^ t>>4 ^ t>>12 ^ t>>16 ^ timesR(t<<60^t<<52^t<<48)
}

// timesR is t times r without what is shifted out.
func timesR(t uint64) uint64 { return t ^ t>>1 ^ t>>3 ^ t>>4 }
