package exec

import (
	"bytes"
	"io"
	"regexp"
	"sync/atomic"
)

// beyondRange matches what programs print when chown(2) or setgroups(2) is given an id
// that the user namespace does not map, which is EINVAL: coreutils, busybox, tar, dpkg,
// rpm, npm.
var beyondRange = regexp.MustCompile(`(?i)(chown|owner|set[a-z]*[ug]id|setgroups|initgroups).*invalid argument|invalid argument.*(chown|owner)`)

// beyondHint is what an ExitError of such a step ends with.
const beyondHint = "an id may be beyond the subordinate ids of this user; build with --isolation=recorded and a store of its own (--root)"

// beyondWatch passes on what a step prints and looks for lines like beyondRange.
type beyondWatch struct {
	w    io.Writer
	line []byte
	seen *atomic.Bool
}

// maxWatched is how much of a line is looked at, in bytes.
const maxWatched = 1024

// Write implements io.Writer.
func (b *beyondWatch) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0 && !b.seen.Load(); {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		b.line = append(b.line, line[:min(len(line), maxWatched-len(b.line))]...)
		if ended {
			b.look()
		}
		rest = after
	}
	return b.w.Write(p) //nolint:wrapcheck // passed through
}

func (b *beyondWatch) look() {
	if bytes.Contains(bytes.ToLower(b.line), []byte("invalid argument")) && beyondRange.Match(b.line) {
		b.seen.Store(true)
	}
	b.line = b.line[:0]
}
