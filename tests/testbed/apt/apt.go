// Package apt reads the package sources of this Debian machine.
package apt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Sources returns this machine's sources of the release in the format of sources.list. It
// includes suites that begin with the name of the release, for example
// "bookworm-security", and only the component main. It returns an error if there is no
// such source.
func Sources(ctx context.Context, release string) (string, error) {
	format := `{"uri":"$(REPO_URI)","suite":"$(RELEASE)","component":"$(COMPONENT)"}`
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", format, "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("list apt's sources: %w", err)
	}
	var lines []string
	decoder := json.NewDecoder(bytes.NewReader(out))
	for decoder.More() {
		var target struct{ URI, Suite, Component string }
		if err := decoder.Decode(&target); err != nil {
			return "", fmt.Errorf("read apt's sources: %w", err)
		}
		line := fmt.Sprintf("deb %s %s %s", target.URI, target.Suite, target.Component)
		if strings.HasPrefix(target.Suite, release) && target.Component == "main" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return "", fmt.Errorf("no apt source of %s, component main, is configured", release)
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// Codename returns the name of this machine's release, for example "bookworm". It returns
// an error if /etc/os-release has no VERSION_CODENAME.
func Codename() (string, error) {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", errors.New("read the release's name: no VERSION_CODENAME in /etc/os-release")
}
