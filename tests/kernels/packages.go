package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/shale-build/shale/tests/testbed/apt"
)

// sources returns the sources of a release in the format of sources.list. They are this
// host's own sources with the name of the release replaced, because the host may reach
// only its own mirror.
func sources(ctx context.Context, release string) (string, error) {
	own, err := apt.Codename()
	if err != nil {
		return "", err
	}
	list, err := apt.Sources(ctx, own)
	if err != nil {
		return "", err
	}
	const keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
	list = strings.ReplaceAll(list, "deb ", "deb [signed-by="+keys+"] ")
	return strings.ReplaceAll(list, own, release), nil
}

// archives is a private set of apt's package lists and caches.
type archives struct {
	config string
	dir    string
}

// newArchives downloads the package lists of a release.
func newArchives(ctx context.Context, dir, release, arch string) (*archives, error) {
	list, err := sources(ctx, release)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	a := &archives{config: filepath.Join(dir, "apt.conf"), dir: dir}
	config := fmt.Sprintf(`Dir::Etc::sourcelist "%[1]s/sources.list"; Dir::Etc::sourceparts "/dev/null"; Dir::State::lists "%[1]s/lists";
Dir::State::status "%[1]s/status"; Dir::Cache "%[1]s/cache"; APT::Architecture "%[2]s"; APT::Architectures "%[2]s";
APT::Sandbox::User "root"; Acquire::Languages "none";
`, dir, arch)
	err = errors.Join(
		os.WriteFile(a.config, []byte(config), 0o644), os.WriteFile(filepath.Join(dir, "sources.list"), []byte(list), 0o644),
		os.WriteFile(filepath.Join(dir, "status"), nil, 0o644),
	)
	if err != nil {
		return nil, err
	}
	_, err = a.run(ctx, "apt-get", "update", "-q")
	return a, err
}

// run runs one of apt's programs and returns its output.
func (a *archives) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = a.dir, append(os.Environ(), "APT_CONFIG="+a.config, "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w: %s", name, args[0], err, stderr.String())
	}
	return string(out), nil
}

// depends returns the first dependency of the package name that begins with prefix.
func (a *archives) depends(ctx context.Context, name, prefix string) (string, error) {
	out, err := a.run(ctx, "apt-cache", "depends", name)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if found, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(found, prefix) {
			return found, nil
		}
	}
	return "", fmt.Errorf("%s depends on no package %s…", name, prefix)
}

// unpack downloads a package and unpacks it to dir.
func (a *archives) unpack(ctx context.Context, name, dir string) error {
	if _, err := a.run(ctx, "apt-get", "download", name); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(a.dir, name+"_*.deb"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("find the package of %s: %d files: %w", name, len(files), err)
	}
	if err := run(ctx, "dpkg-deb", "-x", files[0], dir); err != nil {
		return err
	}
	return os.Remove(files[0])
}
