package main

import (
	"context"
	"os/exec"
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
	args = append([]string{"env", "SHALE=" + plan.Stage + "/shale"}, append(env, args...)...)
	if e.container != "" {
		return command(plan.Stage+"/container", append([]string{
			"-env", e.container, "-rootfs", plan.Stage + "/rootfs", "-bind", plan.Stage, "-bind", mounts, "--",
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
