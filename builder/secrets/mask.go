package secrets

import (
	"bytes"
	"io"
	"sync"
)

// masked replaces a value of any length.
const masked = "****"

// minLine is the minimum length of a line of a secret that is masked separately. Shorter
// lines, for example a single brace of a JSON document, are not secret.
const minLine = 8

// Mask replaces values in streams. The zero value replaces none.
type Mask struct {
	words words
}

// words maps the first byte of each value to the values.
type words map[byte][][]byte

// NewMask returns a Mask of values. White space around a value is ignored, because
// programs strip it. If a value has several lines, each line of at least minLine bytes is
// also masked separately, because programs print lines one by one.
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

// Writer returns a writer that masks its input and passes it to w. Input that may be the
// beginning of a value is held back until the next Write or Close. Close does not close
// w.
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

// Write returns len(p) even if some of p is held back.
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

// Close writes the data that is held back, because it did not become a complete value.
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

// mask returns the masked beginning of data and the offset of the rest. The rest must
// wait for more data. If final is set, no data waits. Values that overlap are masked as
// one.
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

// span returns the end of the value at i. A value that begins inside it extends the end.
// If no value begins at i, span returns i. undecided reports whether more data could
// change the end.
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
