package kaniko

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"golang.org/x/term"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/builder/secrets"
	"github.com/shale-build/shale/cmd/shale/cli/kaniko/bucket"
)

// address returns the address that --context and --bucket together name.
func (c *Command) address() string {
	switch {
	case c.bucket == "":
		return c.context
	case strings.Contains(c.bucket, "://"):
		return c.bucket
	}
	return "gs://" + c.bucket
}

// openContext sets the context in opts. If the context is neither a directory nor an
// address that the builder understands, openContext opens it and passes it to the
// builder as standard input. Closing p closes it.
func (c *Command) openContext(ctx context.Context, stdin io.Reader, p *Plan, opts *builder.Options) error {
	opts.Dockerfile = c.dockerfile
	address := c.address()
	kind, rest, found := strings.Cut(address, "://")
	if !found {
		kind, rest = "dir", address
	}
	if kind == "dir" {
		if rest == "" {
			return errors.New("please specify a path to the build context with --context")
		}
		opts.Context = filepath.Join(rest, c.subPath)
		return nil
	}
	opts.Dockerfile = here(c.dockerfile)
	if kind == "git" {
		var login []secrets.Source
		var err error
		opts.Context, login, err = c.gitContext(rest)
		opts.Secrets = append(opts.Secrets, login...)
		return err
	}
	if c.subPath != "" {
		if !filepath.IsLocal(c.subPath) {
			return fmt.Errorf("invalid --context-sub-path %q: it is a path below the context", c.subPath)
		}
		opts.Subdir = filepath.Clean(c.subPath)
	}
	stores := bucket.Stores{Client: http.DefaultClient, Env: c.env}
	opts.Context = "-"
	switch {
	case kind == "tar" && rest == "stdin":
		if f, ok := stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return errors.New("no data found on standard input: give docker and kubectl the flag --interactive (-i)")
		}
		opts.Stdin = stdin
		return nil
	case kind == "tar":
		f, err := os.Open(rest)
		if err != nil {
			return fmt.Errorf("open build context: %w", err)
		}
		opts.Stdin = f
		p.closers = append(p.closers, f.Close)
		return nil
	case kind == "s3", kind == "gs", stores.IsAzure(address):
		body, err := stores.Open(ctx, address)
		if err != nil {
			return err
		}
		opts.Stdin = body
		p.closers = append(p.closers, body.Close)
		return nil
	case kind == "https", kind == "http":
		opts.Context = address
		return nil
	}
	return fmt.Errorf("unknown build context %q: use dir://, tar://, git://, https://, s3:// or gs://", address)
}

// here returns the absolute path of a Dockerfile that exists in the working directory.
// If it does not exist, here returns the path unchanged. The builder then looks for it
// in the context.
func here(path string) string {
	if filepath.IsAbs(path) || strings.Contains(path, "://") {
		return path
	}
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		return path
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return abs
}

// baseHosts returns the registries that the Dockerfile names, because logins are looked
// up by registry. It returns only docker.io if the Dockerfile cannot be read before the
// build.
func (c *Command) baseHosts() []string {
	hosts := []string{dockerHub}
	data, err := os.ReadFile(c.dockerfile)
	if dir, ok := strings.CutPrefix(c.address(), "dir://"); err != nil && !filepath.IsAbs(c.dockerfile) && (ok || !strings.Contains(dir, "://")) {
		data, err = os.ReadFile(filepath.Join(dir, c.subPath, c.dockerfile))
	}
	if err != nil {
		return hosts // the builder reports the error, if it cannot read the file either
	}
	namesImage := regexp.MustCompile(`(?i)^\s*FROM\s+(?:--\S+\s+)*(\S+)|\s--from=(\S+)`)
	lines := bufio.NewScanner(strings.NewReader(string(data)))
	for lines.Scan() {
		for _, m := range namesImage.FindAllStringSubmatch(lines.Text(), -1) {
			named, err := reference.ParseNormalizedNamed(m[1] + m[2])
			if err == nil && !slices.Contains(hosts, reference.Domain(named)) {
				hosts = append(hosts, reference.Domain(named))
			}
		}
	}
	return hosts
}
