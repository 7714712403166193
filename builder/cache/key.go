package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/opencontainers/go-digest"
)

// version is part of each key. It must be changed if the meaning of a key or of a record
// changes, so that old records are not found any more.
const version = "shale.cache.v1"

// Key identifies an operation and its inputs.
type Key = digest.Digest

// Hasher computes a Key from fields. Each field is preceded by its length, so that
// different sequences of fields always give different bytes.
type Hasher struct {
	h hash.Hash
}

// NewHasher returns a Hasher for keys of the given kind, for example "exec" or "file".
func NewHasher(kind string) *Hasher {
	h := &Hasher{h: sha256.New()}
	return h.String(version).String(kind)
}

// Bytes adds one field.
func (h *Hasher) Bytes(b []byte) *Hasher {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(b)))
	h.h.Write(n[:])
	h.h.Write(b)
	return h
}

// String adds one field.
func (h *Hasher) String(s string) *Hasher { return h.Bytes([]byte(s)) }

// Strings adds a list: its length and then each element.
func (h *Hasher) Strings(list []string) *Hasher {
	h.Int(int64(len(list)))
	for _, s := range list {
		h.String(s)
	}
	return h
}

// Int adds a number.
func (h *Hasher) Int(n int64) *Hasher {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return h.Bytes(b[:])
}

// Bool adds a flag.
func (h *Hasher) Bool(b bool) *Hasher {
	if b {
		return h.Int(1)
	}
	return h.Int(0)
}

// Key returns the key of all fields added so far.
func (h *Hasher) Key() Key {
	return digest.NewDigest(digest.SHA256, h.h)
}
