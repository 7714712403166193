package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// benchCase is a context to build.
type benchCase struct {
	name, what string
	// cold cases copy a file "seed" first, which is another each time.
	cold       bool
	dockerfile func() string
	files      int
}

func cases(opts options) []benchCase {
	return []benchCase{
		{
			name: "rebuild", what: "20 RUN and 50 ENV, nothing changed",
			dockerfile: func() string { return repeat(20, "RUN echo %d > /f%[1]d\n") + repeat(50, "ENV E%d=%[1]d\n") },
		},
		{
			name: "steps", what: "20 small RUN steps, none of them cached", cold: true,
			dockerfile: func() string { return "COPY seed /seed\n" + repeat(20, "RUN echo %d > /f%[1]d\n") },
		},
		{
			name: "copy", what: fmt.Sprintf("COPY of %d files, not cached, and a RUN", opts.files), cold: true, files: opts.files,
			dockerfile: func() string { return "COPY seed /seed\nCOPY tree /tree\nRUN ls -R /tree > /list\n" },
		},
	}
}

func repeat(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// prepare writes the context.
func (c benchCase) prepare(dir, base string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	content := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog.\n", 100))
	for i := range c.files {
		sub := filepath.Join(dir, "tree", fmt.Sprint(i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), append(content, fmt.Sprint(i)...), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+base+"\n"+c.dockerfile()), 0o600)
}
