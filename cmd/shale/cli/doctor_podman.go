package cli

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
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/rmtree"
	"github.com/shale-build/shale/runtime/probe"
)

// podmanPatience is the time limit for all calls of podman together.
const podmanPatience = 30 * time.Second

// podmanResult reports whether podman uses the overlay driver, with which shale keeps
// images. If podman uses another driver, it does not see these images. Podman before
// 4.4 chooses vfs, in the same directory, if the user has no fuse-overlayfs. It stores
// the choice in its database, which overrides storage.conf. given must be set if the
// user chose graphRoot with --root. There is no result if podman is not installed.
func podmanResult(ctx context.Context, graphRoot string, given bool) []probe.Result {
	program, err := exec.LookPath("podman")
	if err != nil || graphRoot == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, podmanPatience)
	defer cancel()
	r := probe.Result{Name: "podman", Status: probe.OK, Detail: "uses the same images"}
	database := databaseOf(graphRoot)
	fresh, err := freshDriver(ctx, program, filepath.Join(graphRoot, "shale", "tmp"))
	current := fresh
	if err == nil && database != "" {
		args := []string{}
		if given {
			args = append(args, "--root", graphRoot)
		}
		current, err = driverOf(ctx, program, args...)
	}
	switch {
	case err != nil:
		r.Status, r.Detail = probe.Degraded, "cannot be asked for its driver: "+oneLine(err)
	case current != overlayDriver || fresh != overlayDriver && database == "":
		r.Status, r.Detail = probe.Degraded, "does not see the same images: its driver is "+current
		r.Fix = podmanFix(fresh, current, database)
	}
	return []probe.Result{r}
}

// overlayDriver is podman's name of the driver that shale uses.
const overlayDriver = "overlay"

// podmanFix returns advice for a podman that does not see the images. fresh is the
// driver that podman would choose without a database, and current is the driver that it
// uses.
func podmanFix(fresh, current, database string) string {
	var steps []string
	if fresh != overlayDriver {
		steps = append(steps, fmt.Sprintf("put driver = %q under [storage] in %s", overlayDriver, storageConf(os.Getenv, os.Geteuid())))
	}
	if database != "" && current != overlayDriver {
		steps = append(steps, "remove "+database+", where podman remembers "+current+": it forgets its containers and pods, and images of "+current+" are to be pulled again")
	}
	return "so that podman and shale see the same images, " + strings.Join(steps, "; and ")
}

// storageConf returns the configuration file that podman reads, see
// containers-storage.conf(5).
func storageConf(env func(string) string, uid int) string {
	if file := env("CONTAINERS_STORAGE_CONF"); file != "" {
		return file
	}
	switch config := env("XDG_CONFIG_HOME"); {
	case uid == 0:
		return "/etc/containers/storage.conf"
	case config != "":
		return filepath.Join(config, "containers/storage.conf")
	}
	return "~/.config/containers/storage.conf"
}

// databaseOf returns the file in which podman stores the driver of a store, or "" if
// there is none. The file is a BoltDB database, or an SQLite database since podman 4.8.
func databaseOf(graphRoot string) string {
	for _, name := range []string{"libpod/bolt_state.db", "db.sql"} {
		path := filepath.Join(graphRoot, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// freshDriver returns the driver that podman chooses if only its configuration decides.
// It runs podman in a temporary directory below dir, because podman would store the
// choice in the real one. freshDriver removes the temporary directory.
func freshDriver(ctx context.Context, program, dir string) (driver string, err error) {
	work, err := os.MkdirTemp(dir, "doctor-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, rmtree.Remove(work)) }()
	// Podman does not accept a run root of more than 50 characters.
	run, err := os.MkdirTemp("/tmp", "shale-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, rmtree.Remove(run)) }()
	at := func(name string) string { return filepath.Join(work, name) }
	driver, err = driverOf(ctx, program, "--root", at("root"), "--runroot", run, "--tmpdir", at("tmp"))
	// Rootless podman leaves a process that keeps its namespaces.
	if text, readErr := os.ReadFile(at("tmp/pause.pid")); readErr == nil {
		if pid, numberErr := strconv.Atoi(strings.TrimSpace(string(text))); numberErr == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL) // the process may have ended
		}
	}
	return driver, err
}

func driverOf(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, append(args, "info", "--format", "{{.Store.GraphDriverName}}")...)
	cmd.Dir = "/"
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return "", fmt.Errorf("podman info: %w: %s", err, lines[len(lines)-1])
	}
	return strings.TrimSpace(string(out)), nil
}
