package exec

import (
	"io"
	"strings"
	"sync/atomic"
	"testing"
)

func TestBeyondWatch(t *testing.T) {
	for text, want := range map[string]bool{
		"chown: changing ownership of '/x': Invalid argument\n":                           true,
		"chown: /x: Invalid argument\n":                                                   true,
		"tar: x: Cannot change ownership to uid 2000000, gid 2: Invalid argument\n":       true,
		"dpkg: error setting ownership of './x': Invalid argument\n":                      true,
		"npm ERR! Error: EINVAL: invalid argument, chown '/usr/lib/node_modules'\n":       true,
		"setgroups: Invalid argument\n":                                                   true,
		"first\nchown: /x: Invalid argument\r\nlast":                                      true,
		"chown: /x: Invalid argument":                                                     true,
		"tar: invalid argument\nchown: /x: Operation not permitted\n":                     false,
		"mount: /x: Invalid argument\n":                                                   false,
		strings.Repeat("x", maxWatched) + "chown: /x: Invalid argument\n" + "\n":          false,
		strings.Repeat("x", 2*maxWatched) + "\n" + "chown: /x: Invalid argument\n" + "\n": true,
	} {
		for _, size := range []int{1, 7, len(text)} {
			var seen atomic.Bool
			var out strings.Builder
			w := &beyondWatch{w: &out, seen: &seen}
			if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{strings.NewReader(text)}, make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			w.look()
			if seen.Load() != want || out.String() != text {
				t.Errorf("%q in pieces of %d: %t, passed on %t", text, size, seen.Load(), out.String() == text)
			}
			if cap(w.line) > 2*maxWatched {
				t.Errorf("%q: %d bytes are kept", text, cap(w.line))
			}
		}
	}
}
