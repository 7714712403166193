package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shale-build/shale/builder/source/shelf"
	"github.com/shale-build/shale/internal/filelock"
)

// bounds are the limits of the cache. They are applied after a fetch.
var bounds = shelf.Policy{KeepEntries: 64, KeepBytes: 8 << 30}

// bare is a locked repository of the cache. A shared lock permits reading. An exclusive
// lock also permits fetching and removing.
type bare struct {
	*shelf.Entry
	path string // path of the repository
}

// open locks the cache entry of a remote. The entry may not have a repository yet.
func (r *Repositories) open(ctx context.Context, remote string, how filelock.Mode) (*bare, error) {
	sum := sha256.Sum256([]byte(remote))
	e, err := shelf.Shelf(r.opts.Dir).Take(ctx, hex.EncodeToString(sum[:16]), how)
	if err != nil {
		return nil, err
	}
	return &bare{Entry: e, path: filepath.Join(e.Dir, "repository")}, nil
}

func (b *bare) close() { _ = b.Close() }

// prepare creates the repository. If it already exists, prepare removes the files that a
// killed fetch left in it.
func (b *bare) prepare(ctx context.Context, g command, object string) error {
	if _, err := os.Lstat(b.path); err == nil {
		return b.tidy()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh := b.path + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	g.gitDir = fresh
	if _, err := g.run(ctx, "init", "--quiet", "--bare", objectFormat(object)); err != nil {
		return err
	}
	// This configuration is for the fetch from this repository into a checkout.
	for _, v := range [][]string{{"uploadpack.allowAnySHA1InWant", "true"}, {"gc.auto", "0"}} {
		if _, err := g.run(ctx, append([]string{"config"}, v...)...); err != nil {
			return err
		}
	}
	return os.Rename(fresh, b.path)
}

func objectFormat(object string) string {
	if len(object) == 64 {
		return "--object-format=sha256"
	}
	return "--object-format=sha1"
}

// tidy removes lock files and partial packs. The caller's exclusive lock guarantees that
// no git process uses the repository.
func (b *bare) tidy() error {
	return filepath.WalkDir(b.path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if len(name) == 2 && filepath.Base(filepath.Dir(path)) == "objects" {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".lock") || strings.HasPrefix(name, "tmp_") || strings.HasPrefix(name, ".tmp-") {
			return os.Remove(path) //nolint:gosec // under our lock, in our directory
		}
		return nil
	})
}
