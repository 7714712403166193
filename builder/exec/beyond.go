package exec

import (
	"bytes"
	"io"
	"regexp"
	"sync/atomic"
)

// beyondRange matches the error messages of programs that call chown(2) or setgroups(2)
// with an id that the user namespace does not map. The system calls then fail with
// EINVAL. It matches the messages of coreutils, busybox, tar, dpkg, rpm and npm.
var beyondRange = regexp.MustCompile(`(?i)(chown|owner|set[a-z]*[ug]id|setgroups|initgroups).*invalid argument|invalid argument.*(chown|owner)`)

// beyondHint is the hint of an ExitError if the output of the step matched beyondRange.
const beyondHint = "an id may be beyond the subordinate ids of this user; build with --isolation=recorded and a store of its own (--root)"

// beyondWatch forwards the output of a step to w and sets seen if a line matches
// beyondRange.
type beyondWatch struct {
	w    io.Writer
	line []byte
	seen *atomic.Bool
}

// maxWatched is the number of bytes at the start of each line that are searched.
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

// look searches the line that is kept. At the end of the output it must be called for a
// last line without a newline.
func (b *beyondWatch) look() {
	if bytes.Contains(bytes.ToLower(b.line), []byte("invalid argument")) && beyondRange.Match(b.line) {
		b.seen.Store(true)
	}
	b.line = b.line[:0]
}
