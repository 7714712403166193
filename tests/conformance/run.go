package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Builder runs builds that are described by flags of docker build.
type Builder interface {
	// Build runs a build. It writes its outputs to the destinations in req.Outputs. An
	// error means that the builder could not run; a failed build is reported in Said.
	Build(ctx context.Context, req Request) (Said, error)
}

// Request is a build in which all @NAME@ variables are already replaced.
type Request struct {
	Case    *Case
	Dir     string // working directory
	Flags   []string
	Context string
	Stdin   []byte
	Outputs []string // each includes its dest
	Env     []string
}

// Runner runs cases.
type Runner struct {
	Builder  Builder
	Bases    *Bases
	Registry string // address of the registry of the base images
	// Same, if not nil, gives every run of a case the same addresses and random values.
	Same *Same
}

// Same holds the values that otherwise differ in each run of a case.
type Same struct {
	Nonce string
	// Server is the address of the case's server. The first run sets its port.
	Server string
}

// fileTime is the modification time of every file of a case, because git does not keep
// modification times.
var fileTime = time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC)

// Run runs the builds of a case and returns their outcomes. Before that, it copies the
// case's files to the directory work below tmp.
func (r *Runner) Run(ctx context.Context, c *Case, tmp string) (outcomes []Outcome, err error) {
	w := &workspace{runner: r, c: c, dir: filepath.Join(tmp, "work")}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.prepare(ctx); err != nil {
		return nil, err
	}
	rec, err := newRecorder(c, r.Bases, runtime.GOARCH, w.variables)
	if err != nil {
		return nil, err
	}
	for i, b := range c.Builds {
		outcome, err := w.build(ctx, rec, i, b)
		if err != nil {
			return nil, fmt.Errorf("build %d: %w", i+1, err)
		}
		outcomes = append(outcomes, outcome)
	}
	return outcomes, nil
}

// workspace is the working directory of a running case.
type workspace struct {
	runner    *Runner
	c         *Case
	dir       string
	server    *server
	variables map[string]string
}

// close stops the server. It also makes all directories writable, so that the user of the
// tests can remove them.
func (w *workspace) close() error {
	var err error
	if w.server != nil {
		err = w.server.close()
	}
	return errors.Join(err, filepath.WalkDir(w.dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil || info.Mode()&0o700 == 0o700 {
			return err
		}
		return os.Chmod(file, 0o700) //nolint:gosec // a directory of our own
	}))
}

func (w *workspace) prepare(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(w.dir, "context"), 0o755); err != nil {
		return err
	}
	foreign := map[bool]string{true: "amd64", false: "arm64"}[runtime.GOARCH == "arm64"]
	w.variables = map[string]string{
		"WORK": w.dir, "REGISTRY": w.runner.Registry, "NONCE": rand.Text(), "ARCH": runtime.GOARCH, "FOREIGN": foreign,
	}
	address := "127.0.0.1:0"
	if same := w.runner.Same; same != nil {
		w.variables["NONCE"], address = same.Nonce, same.Server
	}
	for name, dgst := range w.runner.Bases.Digests() {
		w.variables["DIGEST_"+strings.ToUpper(name)] = dgst
	}
	for _, name := range w.c.Servers {
		if name != "http" {
			return fmt.Errorf("unknown server %q", name)
		}
		var err error
		if w.server, err = startServer(w.dir, address); err != nil {
			return err
		}
		if w.runner.Same != nil {
			w.runner.Same.Server = w.server.addr()
		}
		w.variables["HTTP"] = w.server.addr()
	}
	if err := w.copyCase(); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(w.c.Dir, "setup.sh")); err == nil {
		return w.shell(ctx, filepath.Join(w.dir, "setup.sh"))
	}
	return nil
}

// copyCase copies the case's files. All get the same time, and modes that git can
// represent. Variables are replaced in the files of the case's top directory.
func (w *workspace) copyCase() error {
	var dirs []string
	err := filepath.WalkDir(w.c.Dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative := strings.TrimPrefix(strings.TrimPrefix(file, w.c.Dir), "/")
		target := filepath.Join(w.dir, relative)
		switch {
		case entry.IsDir():
			dirs = append(dirs, target)
			return os.MkdirAll(target, 0o755)
		case entry.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return os.Symlink(link, target) //nolint:gosec // into a directory of our own
		}
		return w.copyFile(file, target, !strings.Contains(relative, "/"))
	})
	for _, dir := range dirs {
		err = errors.Join(err, os.Chmod(dir, 0o755), os.Chtimes(dir, fileTime, fileTime))
	}
	return err
}

func (w *workspace) copyFile(from, to string, substitute bool) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if substitute {
		data = []byte(w.substitute(string(data)))
	}
	mode := fs.FileMode(0o644)
	if info.Mode()&0o100 != 0 {
		mode = 0o755
	}
	return errors.Join(os.WriteFile(to, data, 0o600), os.Chmod(to, mode), os.Chtimes(to, fileTime, fileTime))
}

// substitute replaces @NAME@ by the value of the variable NAME.
func (w *workspace) substitute(s string) string {
	if !strings.Contains(s, "@") {
		return s
	}
	for name, value := range w.variables {
		s = strings.ReplaceAll(s, "@"+name+"@", value)
	}
	return s
}

func (w *workspace) substituteAll(list []string) []string {
	replaced := make([]string, len(list))
	for i := range list {
		replaced[i] = w.substitute(list[i])
	}
	return replaced
}

// shell runs a script in the working directory. If script is an absolute path, it names a
// file; otherwise, it holds the commands.
func (w *workspace) shell(ctx context.Context, script string) error {
	args := []string{"-eu", "-c", "umask 022; " + script}
	if filepath.IsAbs(script) {
		args = []string{"-eu", "-c", "umask 022; . " + script}
	}
	cmd := exec.CommandContext(ctx, "sh", args...)
	cmd.Dir = w.dir
	// Repositories may belong to the container's user.
	cmd.Env = append(os.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_CONFIG_GLOBAL=/dev/null", "TZ=UTC", "LC_ALL=C.UTF-8",
		"LIB="+filepath.Dir(filepath.Dir(w.c.Dir)))
	for _, name := range sortedKeys(w.variables) {
		cmd.Env = append(cmd.Env, name+"="+w.variables[name])
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("prepare the case: %w\n%s", err, out)
	}
	return nil
}

func (w *workspace) build(ctx context.Context, rec *recorder, number int, b Build) (Outcome, error) {
	if b.Before != "" {
		if err := w.shell(ctx, w.substitute(b.Before)); err != nil {
			return Outcome{}, err
		}
	}
	req := Request{Case: w.c, Dir: w.dir, Context: "context"}
	if b.Context != "" {
		req.Context = w.substitute(b.Context)
	}
	req.Flags = w.flags(req.Context, append(w.substituteAll(w.c.Flags), w.substituteAll(b.Flags)...))
	for _, name := range sortedKeys(w.c.Env) {
		req.Env = append(req.Env, name+"="+w.substitute(w.c.Env[name]))
	}
	if b.Stdin != "" {
		var err error
		if req.Stdin, err = os.ReadFile(filepath.Join(w.dir, b.Stdin)); err != nil {
			return Outcome{}, err
		}
	}
	dests := w.outputs(&req, number, b)
	said, err := w.runner.Builder.Build(ctx, req)
	if err != nil {
		return Outcome{}, err
	}
	outcome, err := rec.outcome(b, said, w.dir, dests)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, bytes.TrimSpace(said.stderr))
	}
	return outcome, err
}

// flags selects the case's own Dockerfile if the flags do not select a file.
func (w *workspace) flags(context string, flags []string) []string {
	for _, flag := range flags {
		if flag == "-f" || flag == "--file" || strings.HasPrefix(flag, "--file=") {
			return flags
		}
	}
	if _, err := os.Stat(filepath.Join(w.dir, "Dockerfile")); err == nil && !isRemote(context) {
		return append([]string{"-f", "Dockerfile"}, flags...)
	}
	return flags
}

// isRemote reports whether a context is not a local directory.
func isRemote(context string) bool {
	return context == "-" || strings.Contains(context, "://") || strings.HasPrefix(context, "git@")
}

// outputs adds a destination below out to each output and returns the destinations.
// Outputs to a registry or to the builder's store have none.
func (w *workspace) outputs(req *Request, number int, b Build) []string {
	wanted := b.Outputs
	if len(wanted) == 0 {
		wanted = []string{"type=oci"}
	}
	if wanted[0] == "none" {
		return nil
	}
	var dests []string
	for i, output := range wanted {
		output = w.substitute(output)
		if strings.Contains(output, "type=registry") || strings.Contains(output, "type=image") {
			req.Outputs = append(req.Outputs, output)
			continue
		}
		dest := filepath.Join(w.dir, "out", fmt.Sprintf("%d.%d", number+1, i+1))
		_ = os.MkdirAll(filepath.Dir(dest), 0o755)
		req.Outputs = append(req.Outputs, output+",dest="+dest)
		dests = append(dests, dest)
	}
	return dests
}
