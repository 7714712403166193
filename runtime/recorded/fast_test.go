package recorded

import (
	"testing"

	"golang.org/x/sys/unix"
)

// C must parse a record to the same result as Go, or leave it to Go.
func TestParseOwner(t *testing.T) {
	tests := []struct {
		value string
		ok    bool
	}{
		{"1:2:0644:file", true},
		{"0:50:2775:dir", true},
		{"4294967295:4294967295:0644:file", true},
		{"4294967296:0:0644:file", false},
		{"00000000001:0:0644:file", false},
		{"1:2:0644:char-1-3", false},
		{"1:2:0644:block-7-9", false},
		{"1:2:0644:filed", false},
		{"1:2:0644:", false},
		{"1:2:0644", false},
		{"1:2", false},
		{":2:0644:file", false},
		{"1::0644:file", false},
		{"-1:2:0644:file", false},
		{"1", false},
		{"", false},
	}
	for _, tt := range tests {
		t.Run(tt.value, func(t *testing.T) {
			got, ok := parseOwner([]byte(tt.value))
			if ok != tt.ok {
				t.Fatalf("understood: %v, want %v", ok, tt.ok)
			}
			if want, err := Parse([]byte(tt.value)); ok && (err != nil || got != want) {
				t.Errorf("%+v, want %+v, %v", got, want, err)
			}
		})
	}
	for _, r := range []Record{{UID: 1}, {GID: 7}, {UID: 1<<32 - 2, GID: 1<<32 - 2}} {
		for _, mode := range []uint32{unix.S_IFREG | 0o4755, unix.S_IFDIR | 0o700} {
			if got, ok := parseOwner(r.format(mode)); !ok || got != r {
				t.Errorf("%s is %+v, %v", r.format(mode), got, ok)
			}
		}
	}
}

// The index must have every file in the table. It may have others.
func TestTableIndex(t *testing.T) {
	var all Table
	if all.index.has(1) {
		t.Error("an empty table has something")
	}
	for ino := uint64(1); ino <= 1000; ino++ {
		if err := all.set(key{ino: ino << 20}, Record{UID: 1}); err != nil {
			t.Fatal(err)
		}
	}
	others := 0
	for ino := uint64(1); ino <= 1000; ino++ {
		if !all.index.has(ino << 20) {
			t.Errorf("%d is missing", ino)
		}
		if all.index.has(ino<<20 + 1) {
			others++
		}
	}
	if others > 50 {
		t.Errorf("%d of 1000 files are taken for others", others)
	}
	for ino := uint64(1); ino <= 1000; ino++ {
		if err := all.set(key{ino: ino << 20}, Record{}); err != nil {
			t.Fatal(err)
		}
	}
	if !all.empty() || all.index.has(1<<20) {
		t.Error("what was forgotten is still there")
	}
}
