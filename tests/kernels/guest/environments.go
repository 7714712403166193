package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/shale-build/shale/tests/kernels/plan"
)

// environment is somebody who builds.
type environment struct {
	name string
	// selected are its cases.
	selected plan.Selection
	// user logs in by ssh, for a session as pam_systemd makes it.
	user string
	// container is an environment of tests/environments/container, entered as root.
	container string
	// conformance is CONFORMANCE_ENVIRONMENT, for what is known to differ.
	conformance string
}

// environments by name; the letters are those of docs/environments.md.
var environments = map[string]environment{
	"user":    {user: "dev"},                                  // A
	"root":    {user: "root"},                                 // A
	"oneid":   {user: "nosub", conformance: "oneid"},          // B
	"unshare": {container: "unshare", conformance: "unshare"}, // C
	"docker":  {container: "docker", conformance: "docker"},   // D
}

// command returns a command that runs in the environment with more variables.
func (e environment) command(args []string, env ...string) *exec.Cmd {
	// Without KVM a build takes a minute, on a busy machine several.
	args = append([]string{"timeout", "-k", "10", "900", "env", "SHALE=" + plan.Stage + "/shale"}, append(env, args...)...)
	if e.container != "" {
		return command(plan.Stage+"/container", append([]string{
			"-env", e.container, "-rootfs", rootfs(), "-bind", plan.Stage, "-bind", mounts, "--",
		}, args...)...)
	}
	return session(e.user, args)
}

// session returns a command that a user runs after logging in.
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

// bundle is where the root file system of containers is made when the host cannot.
const bundle = "/var/lib/guest"

// rootfs is the directory that containers start with.
func rootfs() string {
	if dir := filepath.Join(plan.Stage, "rootfs"); exists(dir) {
		return dir
	}
	return filepath.Join(bundle, "rootfs")
}

// makeRootfs makes that directory, of busybox and shale, on another processor than
// the host's.
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
