package git

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/shale-build/shale/builder/source/memo"
)

// Options describe Repositories.
type Options struct {
	// Dir is where bare repositories are kept between builds.
	Dir string
	// WorkDir is an empty directory of this build.
	WorkDir string
	// Secret returns a secret by its ID and whether there is one; nil for
	// no secrets.
	Secret func(id string) ([]byte, bool, error)
	// Agent serves the ssh agent with the ID on a socket at path until it is
	// closed; nil for no agents.
	Agent func(ctx context.Context, id, path string) (io.Closer, error)
	// KnownHosts are the files of the user's known_hosts(5).
	KnownHosts []string
	// Logger is told of what does no harm; nil for nobody.
	Logger *slog.Logger
}

// Repositories resolves and checks out for one build. It is safe for
// concurrent use.
type Repositories struct {
	opts     Options
	git      program
	resolved memo.Memo[Commit]
}

// New makes Repositories. Whether there is a git program is looked up when it
// is first needed.
func New(opts Options) *Repositories {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Repositories{opts: opts}
}

// local is git for work that asks nobody.
func (r *Repositories) local() (command, error) {
	bin, err := r.git.find()
	if err != nil {
		return command{}, err
	}
	return command{
		bin: bin, dir: r.opts.WorkDir, protocols: localProtocol,
		env: []string{"GIT_CEILING_DIRECTORIES=" + filepath.Dir(r.opts.WorkDir)},
	}, nil
}

// remote is git with s.Remote as origin, and with what the remote wants to
// see. The caller calls release.
func (r *Repositories) remote(ctx context.Context, s Spec) (c command, release func(), err error) {
	c, err = r.local()
	if err != nil {
		return c, nil, err
	}
	c.protocols = remoteProtocols
	c.config = []config{{"remote.origin.url", s.Remote}}
	if s.scheme == "ssh" {
		return r.withSSH(ctx, c, s)
	}
	c, err = r.withAuthorization(c, s)
	return c, func() {}, err
}
