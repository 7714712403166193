package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Shale builds with shale. All cases share its home and store, as the builds of one user
// do.
type Shale struct {
	Binary      string
	Environment Environment
	home        string
	env         []string
}

// NewShale prepares a home below dir, in which base.test is the name of the registry. The
// caller must call Close.
func NewShale(binary, dir, registry string, environment Environment) (*Shale, error) {
	s := &Shale{Binary: binary, Environment: environment, home: filepath.Join(dir, "home")}
	run, tmp := filepath.Join(dir, "run"), filepath.Join(dir, "tmp")
	conf := filepath.Join(s.home, ".config", "containers")
	for _, path := range []string{conf, run, tmp} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
	}
	storage := "[storage]\ndriver = \"overlay\"\n"
	if os.Geteuid() == 0 {
		// The default for root is the machine's own store.
		storage += fmt.Sprintf("graphroot = %q\nrunroot = %q\n", s.graphRoot(), filepath.Join(run, "containers"))
	}
	for name, content := range map[string]string{
		"storage.conf": storage,
		"registries.conf": fmt.Sprintf("[[registry]]\nprefix = \"base.test\"\nlocation = %q\ninsecure = true\n", registry) +
			fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", registry),
		"policy.json": `{"default":[{"type":"insecureAcceptAnything"}]}`,
	} {
		if err := os.WriteFile(filepath.Join(conf, name), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	s.env = append(
		cleanEnv(), "HOME="+s.home, "XDG_RUNTIME_DIR="+run, "TMPDIR="+tmp,
		"CONTAINERS_STORAGE_CONF="+filepath.Join(conf, "storage.conf"),
	)
	if layers := os.Getenv("SHALE_LAYERS"); layers != "" {
		s.env = append(s.env, "SHALE_LAYERS="+layers)
	}
	if environment.Name != "" && environment.Inside {
		s.env = append(s.env, "XDG_CACHE_HOME="+insideStore)
	}
	return s, environment.give(dir)
}

func (s *Shale) graphRoot() string {
	if s.Environment.Inside {
		return insideStore
	}
	return filepath.Join(s.home, "storage")
}

// cleanEnv returns the part of the tests' environment that builds may see.
func cleanEnv() []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "USER=" + os.Getenv("USER")}
	if layers := os.Getenv("SHALE_LAYERS"); layers != "" {
		env = append(env, "SHALE_LAYERS="+layers)
	}
	return env
}

// Build implements Builder with shale build.
func (s *Shale) Build(ctx context.Context, req Request) (Said, error) {
	args := append([]string{"build", "--progress", "rawjson"}, req.Flags...)
	for _, output := range req.Outputs {
		args = append(args, "--output", output)
	}
	args = append(args, req.Context)
	env := append(s.env, req.Env...)
	if s.Environment.Name == "" {
		return start(ctx, s.Binary, args, req, env)
	}
	if err := s.Environment.give(req.Dir); err != nil {
		return Said{}, err
	}
	command := append(s.Environment.command(req.Dir), append([]string{"shale"}, args...)...)
	return start(ctx, command[0], command[1:], req, env)
}

// Close removes the home. If the user has subordinate ids, many of its files belong to
// them.
func (s *Shale) Close() error {
	remove := []string{"rm", "-rf", s.home}
	if os.Geteuid() == 0 {
		return run(remove)
	}
	mapped := append([]string{"unshare", "--map-root-user", "--map-auto"}, remove...)
	if run(mapped) == nil {
		return nil
	}
	return run(append([]string{"unshare", "--map-root-user"}, remove...))
}

func run(command []string) error {
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil { //nolint:noctx // our own directory
		return fmt.Errorf("remove the store: %w: %s", err, out)
	}
	return nil
}

// start runs a program and waits for it. It returns an error only if the program does not
// start.
func start(ctx context.Context, program string, args []string, req Request, env []string) (Said, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = req.Dir, env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(req.Stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return Said{}, err
	}
	return Said{stdout: stdout.Bytes(), stderr: stderr.Bytes(), failed: err != nil, status: cmd.ProcessState.ExitCode()}, nil
}
