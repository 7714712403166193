package display

import (
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// Text returns a writer to w for text that must not control a terminal: names,
// histories and labels of images, lines of Dockerfiles, and answers of registries. If w
// is a terminal, control characters are written in the representation of less(1).
// Otherwise, all bytes are written unchanged, so that programs can read them.
func Text(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok {
		return &text{file: f, terminal: sync.OnceValue(func() bool { return term.IsTerminal(int(f.Fd())) })}
	}
	return w
}

// Raw returns the writer that was passed to Text. It must be used for output that
// controls the terminal, and for content such as archives.
func Raw(w io.Writer) io.Writer {
	if t, ok := w.(*text); ok {
		return t.file
	}
	return w
}

type text struct {
	file     *os.File
	terminal func() bool
}

// Write implements io.Writer. The caller must not split a character between two calls.
func (t *text) Write(p []byte) (int, error) {
	if !t.terminal() {
		return t.file.Write(p)
	}
	if _, err := t.file.WriteString(visible(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
