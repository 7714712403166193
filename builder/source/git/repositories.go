package git

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/shale-build/shale/builder/source/memo"
)

// Options are the options of Repositories.
type Options struct {
	// Dir is the directory in which bare repositories are cached between builds.
	Dir string
	// WorkDir is an empty directory of this build.
	WorkDir string
	// Secret returns a secret by its ID and reports whether it exists. It is nil if the
	// build has no secrets.
	Secret func(id string) ([]byte, bool, error)
	// Agent serves the ssh agent id on a socket at path until the result is closed. It is
	// nil if the build has no agents.
	Agent func(ctx context.Context, id, path string) (io.Closer, error)
	// KnownHosts are the paths of the user's known_hosts(5) files.
	KnownHosts []string
	// Logger reports harmless problems. It may be nil.
	Logger *slog.Logger
}

// Repositories resolves and checks out commits for one build. It is safe for concurrent
// use.
type Repositories struct {
	opts     Options
	git      program
	resolved memo.Memo[Commit]
}

// New returns a Repositories. The git program is searched when it is first used.
func New(opts Options) *Repositories {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Repositories{opts: opts}
}

// local returns a git command that uses no network.
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

// remote returns a git command with s.Remote as the remote "origin", and with the
// credentials for it. The caller must call release.
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
