package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// bench holds the working directory, the registry and the builders of a run.
type bench struct {
	work, registry string
	builders       []builder
}

// builder is a program that can build a directory. The arguments turn its cache on and
// make it write to its local store, if it has such options.
type builder struct {
	name, program, version string
	args                   func(b *bench, dir string) []string
	// env gives the builder its own home, so that its store starts empty and never holds
	// content of other builders.
	env []string
}

// candidates returns the known builders. Those found on PATH are compared; shale must be
// the first.
func candidates() []builder {
	return []builder{
		{name: "shale", program: os.Getenv("SHALE_BIN"), args: func(_ *bench, dir string) []string {
			return []string{"build", "-t", "bench", dir}
		}},
		{name: "buildah", program: "buildah", args: func(_ *bench, dir string) []string {
			return []string{"bud", "--layers", "-t", "bench-buildah", dir}
		}},
		{name: "podman", program: "podman", args: func(_ *bench, dir string) []string {
			return []string{"build", "--layers", "-t", "bench-podman", dir}
		}},
		{name: "buildctl", program: "buildctl", args: func(b *bench, dir string) []string {
			return []string{
				"build", "--frontend", "dockerfile.v0", "--local", "context=" + dir, "--local", "dockerfile=" + dir,
				"--output", "type=oci,dest=" + filepath.Join(b.work, "buildctl.tar"),
			}
		}},
		{name: "kaniko", program: "kaniko", args: func(b *bench, dir string) []string {
			return []string{
				"--context", dir, "--cache", "--cache-repo", b.registry + "/kaniko-cache", "--insecure", "--insecure-pull",
				"--destination", b.registry + "/bench-kaniko",
			}
		}},
	}
}

func newBench(ctx context.Context) (*bench, error) {
	b := &bench{registry: os.Getenv("SHALE_REGISTRY")}
	if b.registry == "" || os.Getenv("SHALE_BIN") == "" {
		return nil, errors.New("SHALE_REGISTRY and SHALE_BIN are not set; run make bench")
	}
	var err error
	if b.work, err = os.MkdirTemp("/var/tmp", "shale-bench-"); err != nil {
		return nil, err
	}
	for _, c := range candidates() {
		path, err := exec.LookPath(c.program)
		if err != nil {
			continue
		}
		c.program = path
		if c.env, err = b.makeHome(c.name); err != nil {
			return nil, err
		}
		if c.version, err = c.findVersion(ctx); err != nil {
			// The program is installed but cannot run, for example a buildctl without a
			// daemon. Print a message instead of skipping it silently.
			fmt.Fprintf(os.Stderr, "bench: leaving out %s: %v\n", c.name, err)
			continue
		}
		b.builders = append(b.builders, c)
	}
	if len(b.builders) == 0 || b.builders[0].name != "shale" {
		return nil, errors.New("shale itself does not run")
	}
	return b, nil
}

// versions returns the names and versions of the builders.
func (b *bench) versions() []string {
	var list []string
	for _, c := range b.builders {
		list = append(list, c.name+" "+c.version)
	}
	return list
}

// makeHome makes a home for a builder and returns the environment that selects it.
func (b *bench) makeHome(name string) ([]string, error) {
	home, run := filepath.Join(b.work, name, "home"), filepath.Join(b.work, name, "run")
	conf := filepath.Join(home, ".config", "containers")
	for _, dir := range []string{conf, run} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	// Give all builders that read these files the same driver, runtime and network.
	for name, content := range map[string]string{
		"registries.conf": fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", b.registry),
		"storage.conf":    "[storage]\ndriver = \"overlay\"\n",
		"containers.conf": "[containers]\nnetns = \"host\"\n[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n",
		"policy.json":     `{"default":[{"type":"insecureAcceptAnything"}]}`,
	} {
		if err := os.WriteFile(filepath.Join(conf, name), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	return append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+run,
		"CONTAINERS_STORAGE_CONF="+filepath.Join(conf, "storage.conf"), "CONTAINERS_CONF="+filepath.Join(conf, "containers.conf")), nil
}

func (c builder) findVersion(ctx context.Context) (string, error) {
	arg := "--version"
	if c.name == "buildctl" {
		arg = "debug" // needs the daemon, as a build does
	}
	cmd := exec.CommandContext(ctx, c.program, arg)
	if c.name == "buildctl" {
		cmd.Args = append(cmd.Args, "info")
	}
	cmd.Env = c.env
	out, err := cmd.Output()
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimPrefix(strings.TrimSpace(first), c.name+" version "), nil
}

// build runs a build and returns the builder's output.
func (c builder) build(ctx context.Context, b *bench, dir string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.program, c.args(b, dir)...)
	cmd.Env = c.env
	cmd.Dir = dir
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, output.Bytes())
	}
	return output.Bytes(), nil
}

// endPause kills the pause process with which rootless podman holds its namespaces.
func (b *bench) endPause() {
	data, err := os.ReadFile(filepath.Join(b.work, "podman", "run", "libpod", "tmp", "pause.pid"))
	if err != nil {
		return // podman did not run
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// cleanUp removes the working directory. Its stores contain files of subordinate ids.
func (b *bench) cleanUp() {
	b.endPause()
	args := []string{"rm", "-rf", b.work}
	if os.Geteuid() != 0 {
		args = append([]string{"unshare", "--map-root-user", "--map-auto"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // must end even when interrupted
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: remove %s: %v: %s\n", b.work, err, out)
	}
}
