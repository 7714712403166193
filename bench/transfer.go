package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// transferCase moves an image between a builder's store and the registry.
type transferCase struct {
	name, what string
	// content returns the content of the pushed image. It is nil for a pull.
	content func() io.Reader
	// nonce is the beginning of every seed, as in benchCase.
	nonce string
}

// transferSize is the number of bytes in a pushed image.
const transferSize = 500_000_000

func transferCases() []transferCase {
	random := func() io.Reader { return rand.NewChaCha8([32]byte{1}) }
	nonce := crand.Text()
	return []transferCase{
		{name: "push-text", what: "push of 500 MB that can be compressed", content: func() io.Reader { return words{rand.NewChaCha8([32]byte{1})} }, nonce: nonce},
		{name: "push-random", what: "push of 500 MB of random bytes", content: random, nonce: nonce},
		{name: "pull", what: "pull and unpack a Debian base"},
	}
}

// words is text of ten letters. It compresses to less than half its size.
type words struct{ random io.Reader }

// Read implements io.Reader.
func (w words) Read(p []byte) (int, error) {
	n, err := w.random.Read(p)
	for i := range p[:n] {
		p[i] = "etaoin shr"[p[i]%10]
	}
	return n, err
}

// mover holds the commands with which a builder moves images. The commands in before run
// first and are not timed.
type mover struct {
	builder
	before, timed [][]string
}

// movers returns the programs that can run c.
func (b *bench) movers(c transferCase, dir string) []mover {
	base := b.registry + "/debian"
	var list []mover
	for _, x := range b.builders {
		to := b.registry + "/" + c.name + "-" + x.name
		build := [][]string{x.args(b, dir)}
		switch {
		case x.name == "shale" && c.content != nil:
			list = append(list, mover{x, build, [][]string{{"push", "--tls-verify=false", "bench", to}}})
		case x.name == "shale":
			list = append(list, mover{x, [][]string{{"rmi", "-f", base}, {"system", "prune", "-af"}}, [][]string{{"pull", "--tls-verify=false", base}}})
		case x.name == "buildctl" && c.content != nil:
			// Build without an output first, because an output would already compress the
			// layer.
			alone := build[0][:len(build[0])-2]
			push := slices.Concat(alone, []string{"--output", "type=image,push=true,registry.insecure=true,name=" + to})
			list = append(list, mover{x, [][]string{alone}, [][]string{push}})
		case x.name == "buildah" || x.name == "podman":
			if c.content != nil {
				list = append(list, mover{x, build, [][]string{{"push", "bench-" + x.name, "docker://" + to}}})
			} else {
				list = append(list, mover{x, [][]string{{"rmi", "-f", base}}, [][]string{{"pull", base}}})
			}
		}
	}
	return append(list, b.skopeo(c, list)...)
}

// skopeo returns a mover that copies from buildah's store and to it. It returns none if
// skopeo or buildah is missing.
func (b *bench) skopeo(c transferCase, list []mover) []mover {
	path, err := exec.LookPath("skopeo")
	i := slices.IndexFunc(list, func(m mover) bool { return m.name == "buildah" })
	if err != nil || i < 0 {
		return nil
	}
	m := list[i]
	m.name, m.program = "skopeo", path
	m.timed = [][]string{{"copy", "--dest-tls-verify=false", "containers-storage:localhost/bench-buildah", "docker://" + b.registry + "/" + c.name + "-skopeo"}}
	if c.content == nil {
		m.timed = [][]string{{"copy", "--src-tls-verify=false", "docker://" + b.registry + "/debian", "containers-storage:" + b.registry + "/debian:latest"}}
	}
	// skopeo cannot build or remove images, so buildah does.
	for j, args := range m.before {
		m.before[j] = append([]string{list[i].program}, args...)
	}
	return []mover{m}
}

func (m mover) run(ctx context.Context, args []string, dir string, mayFail bool) error {
	program := m.program
	if filepath.IsAbs(args[0]) {
		program, args = args[0], args[1:]
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Dir = m.env, dir
	if out, err := cmd.CombinedOutput(); err != nil && !mayFail {
		return fmt.Errorf("%s %v: %w: %s", m.name, args, err, out)
	}
	return nil
}

// transfer measures one case. Before each push, the image is built again. Before each
// pull, it is removed from the store.
func (b *bench) transfer(ctx context.Context, c transferCase, rounds int) ([]result, error) {
	dir := filepath.Join(b.work, c.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := c.prepare(dir); err != nil {
		return nil, err
	}
	movers := b.movers(c, dir)
	results := make([]result, len(movers))
	for round := range rounds + 1 {
		for i, m := range movers {
			if err := c.vary(dir, fmt.Sprintf("%d-%s", round, m.name)); err != nil {
				return nil, err
			}
			for _, args := range m.before {
				if err := m.run(ctx, args, dir, c.content == nil); err != nil {
					return nil, err
				}
			}
			start := time.Now()
			for _, args := range m.timed {
				if err := m.run(ctx, args, dir, false); err != nil {
					return nil, err
				}
			}
			if round > 0 { // the first round warms up
				results[i].Seconds = append(results[i].Seconds, time.Since(start).Seconds())
			}
		}
	}
	for i, m := range movers {
		r := &results[i]
		r.Case, r.Builder, r.Median = c.name, m.name, median(r.Seconds)
		r.Ratio = r.Median / median(results[0].Seconds)
	}
	return results, os.RemoveAll(dir)
}

func (c transferCase) prepare(dir string) error {
	if c.content == nil {
		return nil
	}
	f, err := os.Create(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, c.content(), transferSize)
	return errors.Join(err, f.Close(), os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY data /data\n"), 0o600))
}

// vary overwrites the beginning of the content.
func (c transferCase) vary(dir, seed string) error {
	if c.content == nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(dir, "data"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(c.nonce+seed+"\n"), 0)
	return errors.Join(err, f.Close())
}
