package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// change is the part of a case's context that changes before each build.
type change int

const (
	never change = iota
	// everything changes all files of the context, and {seed} in the Dockerfile, so that
	// no step is cached.
	everything
	// oneFile changes one file of the tree.
	oneFile
)

// benchCase describes a build context.
type benchCase struct {
	name, what string
	change     change
	// base is an image of the test bed, or "" for scratch.
	base       string
	dockerfile string
	// files is the number of files in the directory tree. Each has size bytes, to which
	// prepare appends the number of the file.
	files, size int
	// slow cases run only if they are selected.
	slow bool
	// nonce is the beginning of every seed. It prevents hits in the cache of a daemon
	// that was running before.
	nonce string
}

const steps = 20

func cases(opts options) []benchCase {
	small := "LABEL seed={seed}\nCOPY file /\n"
	runs := repeat(steps, "RUN echo {seed} %d > /f%[1]d\n")
	envs := "ENV SEED={seed}\n" + repeat(50, "ENV E%d=%[1]d\n")
	tree := "COPY tree /tree\n"
	writeFiles := fmt.Sprintf("mkdir /d && cd /d && i=0 && while [ $i -lt %d ]; do echo {seed} $i > $i; i=$((i+1)); done", opts.files)
	list := []benchCase{
		{name: "small", what: "FROM scratch, LABEL, COPY of one file", dockerfile: small},
		{name: "steps", what: fmt.Sprintf("%d small RUN steps", steps), base: "busybox", dockerfile: runs},
		{name: "env", what: "50 ENV", base: "busybox", dockerfile: envs},
		{
			name: "stages", what: "two stages of sleep 2, copied together", base: "busybox",
			dockerfile: "RUN sleep 2 && echo {seed} > /a\nFROM {base} AS b\nRUN sleep 2 && echo {seed} > /b\nFROM {base}\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
		},
		{
			name: "copy", what: fmt.Sprintf("COPY of %d files of 10 KB", opts.files), base: "busybox", files: opts.files, size: 10 << 10,
			dockerfile: "RUN echo {seed}\n" + tree,
		},
		{name: "files", what: fmt.Sprintf("RUN that writes %d files", opts.files), base: "busybox", dockerfile: timed(writeFiles)},
		{
			name: "big", what: "RUN that writes 500 MB of random bytes", base: "busybox",
			dockerfile: timed("echo {seed} && head -c 500000000 /dev/urandom > /big"), slow: true,
		},
		{
			name: "apt", what: "apt-get update and install curl", base: "debian", slow: true,
			dockerfile: timed("echo {seed} && apt-get update && apt-get install -y --no-install-recommends curl"),
		},
	}
	var all []benchCase
	nonce := rand.Text()
	for _, c := range list {
		c.nonce = nonce
		cold, warm := c, c
		cold.name, cold.change = c.name+"-cold", everything
		warm.name, warm.what = c.name+"-warm", c.what+", nothing changed"
		all = append(all, cold, warm)
		if c.files > 0 {
			one := c
			one.name, one.what, one.change = c.name+"-one", c.what+", one of them changed", oneFile
			all = append(all, one)
		}
	}
	return all
}

// timed returns a RUN instruction that prints when its command started and ended.
func timed(command string) string {
	now := "$(cut -d' ' -f1 /proc/uptime)"
	return "RUN from=" + now + " && " + command + " && echo took $from to " + now + "\n"
}

func repeat(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// prepare writes the context.
func (c benchCase) prepare(dir, registry string) error {
	if err := os.MkdirAll(filepath.Join(dir, "tree"), 0o755); err != nil {
		return err
	}
	content := strings.Repeat("The quick brown fox jumps over the lazy dog.\n", c.size/45+1)[:c.size]
	for i := range c.files {
		sub := filepath.Join(dir, "tree", fmt.Sprint(i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(c.file(dir, i), append([]byte(content), fmt.Sprint(i)...), 0o600); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "file"), []byte("content\n"), 0o600),
		c.vary(dir, registry, "first"),
	)
}

// file returns the path of file i.
func (c benchCase) file(dir string, i int) string {
	return filepath.Join(dir, "tree", fmt.Sprint(i/100), fmt.Sprint(i))
}

// rewrite writes seed to every file, so that no builder knows any of them.
func (c benchCase) rewrite(dir, seed string) error {
	for i := range c.files {
		f, err := os.OpenFile(c.file(dir, i), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte(seed), 0)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// vary changes the context before the next build, as the case requires.
func (c benchCase) vary(dir, registry, seed string) error {
	seed = c.nonce + seed
	switch c.change {
	case oneFile:
		if err := os.WriteFile(filepath.Join(dir, "tree", "0", "0"), []byte(seed), 0o600); err != nil {
			return err
		}
		seed = c.nonce + "fixed"
	case never:
		seed = c.nonce + "fixed"
	case everything:
		if err := c.rewrite(dir, seed); err != nil {
			return err
		}
	}
	base := "scratch"
	if c.base != "" {
		base = registry + "/" + c.base
	}
	text := strings.NewReplacer("{seed}", seed, "{base}", base).Replace("FROM {base} AS a\n" + c.dockerfile)
	return os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o600)
}
