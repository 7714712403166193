package secrets

import (
	"bytes"
	"io"
	"sync"
)

// masked stands for a value, whatever its length.
const masked = "****"

// minLine is the length of the shortest line of a longer secret that is masked
// by itself: a lone brace of a JSON document is no secret.
const minLine = 8

// Mask replaces values in streams. The zero value lets everything through.
type Mask struct {
	words words
}

// words are the values by their first byte.
type words map[byte][][]byte

// NewMask makes a Mask of values. White space around a value does not count,
// as programs cut it off; of a value with several lines, each longer line is
// masked by itself, as programs print them one by one.
func NewMask(values ...[]byte) *Mask {
	m := &Mask{words: words{}}
	for _, v := range values {
		v = bytes.TrimSpace(v)
		m.add(v)
		if lines := bytes.Split(v, []byte("\n")); len(lines) > 1 {
			for _, line := range lines {
				if line = bytes.TrimSpace(line); len(line) >= minLine {
					m.add(line)
				}
			}
		}
	}
	return m
}

func (m *Mask) add(word []byte) {
	if len(word) == 0 {
		return
	}
	for _, w := range m.words[word[0]] {
		if bytes.Equal(w, word) {
			return
		}
	}
	m.words[word[0]] = append(m.words[word[0]], bytes.Clone(word))
}

// Writer returns a writer that hands on to w what is written to it, masked.
// What may be the beginning of a value is held back until the next write tells
// or Close is called, which does not close w.
func (m *Mask) Writer(w io.Writer) io.WriteCloser {
	if m == nil || len(m.words) == 0 {
		return through{w}
	}
	return &maskWriter{words: m.words, to: w}
}

type through struct{ io.Writer }

func (through) Close() error { return nil }

type maskWriter struct {
	words words
	to    io.Writer

	mu   sync.Mutex
	held []byte
}

// Write reports p as written also where some of it is held back.
func (w *maskWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = append(w.held, p...)
	out, keep := w.mask(w.held, false)
	w.held = append(w.held[:0], w.held[keep:]...)
	if len(out) == 0 {
		return len(p), nil
	}
	if _, err := w.to.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close lets out what was held back: it did not become a value.
func (w *maskWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	out, _ := w.mask(w.held, true)
	w.held = nil
	if len(out) == 0 {
		return nil
	}
	_, err := w.to.Write(out)
	return err
}

// mask returns the masked beginning of data and where the rest starts that has
// to wait, unless this is final. Values that overlap are masked as one.
func (w *maskWriter) mask(data []byte, final bool) (out []byte, keep int) {
	i := 0
	for i < len(data) {
		end, undecided := w.span(data, i)
		switch {
		case undecided && !final:
			return out, i
		case end == i:
			out = append(out, data[i])
			i++
		default:
			out = append(out, masked...)
			i = end
		}
	}
	return out, i
}

// span returns the end of the values that begin at i, or inside one another
// from there on; i itself when none does. It is undecided when more data could
// move the end.
func (w *maskWriter) span(data []byte, i int) (end int, undecided bool) {
	end = i
	for at := i; at == i || at < end; at++ {
		rest := data[at:]
		for _, word := range w.words[rest[0]] {
			switch {
			case bytes.HasPrefix(rest, word):
				end = max(end, at+len(word))
			case len(rest) < len(word) && bytes.HasPrefix(word, rest):
				undecided = true
			}
		}
	}
	return end, undecided
}
