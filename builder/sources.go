package builder

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/shale-build/shale/builder/frontend"
	"github.com/shale-build/shale/builder/secrets"
	"github.com/shale-build/shale/builder/source"
	"github.com/shale-build/shale/builder/source/git"
	"github.com/shale-build/shale/builder/source/http"
	"github.com/shale-build/shale/builder/sshagent"
)

// Names of directories in the state directory of the store: bare repositories of package
// source/git and files of package source/http.
const (
	GitState      = "git"
	DownloadState = "downloads"
)

// openSources returns the sources of files that a graph can start from.
func (b *build) openSources() (*source.Sources, error) {
	repositories, err := b.deps.Store.StateDir(GitState)
	if err != nil {
		return nil, err
	}
	downloads, err := b.deps.Store.StateDir(DownloadState)
	if err != nil {
		return nil, err
	}
	work, err := b.mounts.NewDir("git")
	if err != nil {
		return nil, err
	}
	s := &source.Sources{
		Images: b.images, Index: b.files, Locals: b.inputs.Locals, Layouts: b.inputs.Layouts, Archive: b.inputs.Archive, Mounts: b.mounts,
		Git: git.New(git.Options{
			Dir: repositories, WorkDir: work, Secret: b.secret, Agent: b.agent, KnownHosts: knownHosts(), Logger: b.deps.Logger,
		}),
		Downloads: http.OpenCache(downloads),
		Secret:    b.secret,
	}
	b.closers = append(b.closers, s.Close)
	return s, nil
}

// secret returns the secret with an ID that a server asks for, and whether it exists.
func (b *build) secret(id string) ([]byte, bool, error) {
	data, err := b.secrets.Get(id)
	if errors.Is(err, secrets.ErrNotFound) {
		return nil, false, nil
	}
	return data, err == nil, err
}

// agent gives git access to the ssh agent with the ID. The agent listens at path.
func (b *build) agent(ctx context.Context, id, path string) (io.Closer, error) {
	return b.agents.Listen(ctx, id, path)
}

// withOwnAgent adds the user's agent to list if the context is a repository over ssh, as
// docker does. A user who builds such a repository expects that the keys are used.
func (b *build) withOwnAgent(list []sshagent.Source) []sshagent.Source {
	if len(list) > 0 || !frontend.IsGitSSH(b.opts.Context) || os.Getenv("SSH_AUTH_SOCK") == "" {
		return list
	}
	return []sshagent.Source{{ID: sshagent.DefaultID}}
}

// knownHosts returns the files in which ssh records the keys of hosts.
func knownHosts() []string {
	files := []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}
	if home, err := os.UserHomeDir(); err == nil {
		for _, name := range []string{"known_hosts", "known_hosts2"} {
			files = append(files, filepath.Join(home, ".ssh", name))
		}
	}
	return files
}
