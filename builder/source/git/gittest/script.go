package gittest

import (
	"fmt"
	"os"
	"os/exec"
)

// Script creates dir and runs the shell script lines in it. Author, committer and dates
// are fixed, so that each run gives the same commits. The user's git configuration is not
// read.
func Script(dir, lines string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a test's
		return err
	}
	cmd := exec.Command("sh", "-euc", lines) //nolint:noctx // a test's own script
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/dev/null", "LC_ALL=C", "TZ=UTC",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_AUTHOR_DATE=1000000000 +0000",
		"GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@example.com", "GIT_COMMITTER_DATE=1100000000 +0000",
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=init.defaultBranch", "GIT_CONFIG_VALUE_0=master",
		"GIT_CONFIG_KEY_1=protocol.file.allow", "GIT_CONFIG_VALUE_1=always",
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("script in %s: %w\n%s", dir, err, out)
	}
	return nil
}
