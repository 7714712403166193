package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shale-build/shale/tests/kernels/plan"
)

// environment is the user or container in which the builds of a case run.
type environment struct {
	name string
	// selected are the cases of this environment.
	selected plan.Selection
	// user is the user that logs in by ssh, so that pam_systemd creates a session.
	user string
	// container is an environment of tests/environments/container. It is started by root.
	container string
	// conformance is the value of CONFORMANCE_ENVIRONMENT. It selects the known
	// differences.
	conformance string
}

// environments maps names to environments. The letters are those of docs/environments.md.
var environments = map[string]environment{
	"user":    {user: "dev"},                                  // A
	"root":    {user: "root"},                                 // A
	"oneid":   {user: "nosub", conformance: "oneid"},          // B
	"unshare": {container: "unshare", conformance: "unshare"}, // C
	"docker":  {container: "docker", conformance: "docker"},   // D
}

// command returns a command that runs args in the environment, with additional
// environment variables.
func (e environment) command(args []string, env ...string) *exec.Cmd {
	// Without KVM, a build takes a minute. On a busy host it takes several.
	args = append([]string{"timeout", "-k", "10", "900", "env", "SHALE=" + plan.Stage + "/shale"}, append(env, args...)...)
	if e.container != "" {
		binds := []string{"-bind", plan.Stage, "-bind", mounts}
		if exists(imageCache) {
			binds = append(binds, "-bind", imageCache)
		}
		return command(plan.Stage+"/container", slices.Concat([]string{"-env", e.container, "-rootfs", rootfs()}, binds, []string{"--"}, args)...)
	}
	return session(e.user, args)
}

// session returns a command that runs args as a user after a login by ssh.
func session(user string, args []string) *exec.Cmd {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return command("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", user+"@127.0.0.1", strings.Join(quoted, " "))
}

func command(name string, args ...string) *exec.Cmd {
	return exec.CommandContext(context.Background(), name, args...)
}

// imageCache is the directory for the base images if the host could not make them.
const imageCache = "/var/cache/images"

// bundle is the directory for the containers' root file system if the host could not make
// one.
const bundle = "/var/lib/guest"

// rootfs returns the root file system that containers start with.
func rootfs() string {
	if dir := filepath.Join(plan.Stage, "rootfs"); exists(dir) {
		return dir
	}
	return filepath.Join(bundle, "rootfs")
}

// makeRootfs makes that root file system from the busybox image and shale, if the stage
// has none. The host makes one only for its own architecture.
func makeRootfs(images string) error {
	if exists(rootfs()) {
		return nil
	}
	script := `umoci unpack --image "$1/busybox:latest" "$2" && mkdir -p "$2/rootfs/usr/local/bin" && cp "$3/shale" "$2/rootfs/usr/local/bin/"`
	if out, err := command("sh", "-c", script, "sh", images, bundle, plan.Stage).CombinedOutput(); err != nil {
		return fmt.Errorf("make the root file system of containers: %w: %s", err, out)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
