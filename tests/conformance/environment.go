package conformance

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Environment is a kind of container in which shale builds while the suite runs
// outside, as root. The zero value is none. Each build has a container to
// itself, started by tests/environments/container.
type Environment struct {
	// Program is that command, Name an environment as it names them.
	Program, Name string
	// Rootfs is the directory that the root file system starts as.
	Rootfs string
	// Shared is what the container has of the host: homes and working
	// directories are below it.
	Shared string
	// Inside puts the store into the root file system of the container, which
	// then all builds of a case share; else it is on a volume that all cases do.
	Inside bool
}

// user of the command in environments that are not root's, see
// tests/environments/container/environments.go.
const user = 1000

// uid is that of the container's command.
func (e *Environment) uid() int {
	if strings.Contains(e.Name, "-user") {
		return user
	}
	return 0
}

// insideStore is where the store is when Inside is set: not where a case removes
// it.
const insideStore = "/shale-store"

// command is what starts a command for a build in dir.
func (e *Environment) command(dir string) []string {
	command := []string{e.Program, "-env", e.Name, "-rootfs", e.Rootfs, "-bind", e.Shared}
	if e.Inside {
		command = append(command, "-keep", filepath.Join(filepath.Dir(dir), "container"))
	}
	return append(command, "--")
}

// give hands what is below dir to the container's user.
func (e *Environment) give(dir string) error {
	if e.Name == "" || e.uid() == 0 {
		return nil
	}
	// Those above are the testing package's, which only root may enter.
	for _, above := range []string{filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
		if above == e.Shared {
			break
		}
		if err := os.Chmod(above, 0o755); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if err := os.Lchown(file, e.uid(), e.uid()); err != nil { //nolint:gosec // nobody else is in it
			return err
		}
		// A change of owner takes these bits.
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) == 0 || !info.Mode().IsRegular() {
			return nil
		}
		return os.Chmod(file, info.Mode()) //nolint:gosec // nobody else is in it
	})
}

// Difference is a case, or several for one reason, that cannot come out in some
// environments as it does elsewhere.
type Difference struct {
	Cases        []string `json:"cases"`
	Environments []string `json:"environments"`
	// Why is for docs/environments.md.
	Why string `json:"why"`
	// Says is a regular expression that what differs matches: the lines of a
	// diff.
	Says string `json:"says"`
}

//go:embed environments.json
var differences []byte

// LoadDifferences reads environments.json.
func LoadDifferences() ([]Difference, error) {
	var list []Difference
	decoder := json.NewDecoder(bytes.NewReader(differences))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&list); err != nil {
		return nil, fmt.Errorf("read environments.json: %w", err)
	}
	return list, nil
}

// Expected is what is known of a case in an environment, nil when it has to hold.
func Expected(list []Difference, environment, name string) *Difference {
	for i, d := range list {
		if slices.Contains(d.Environments, environment) && slices.Contains(d.Cases, name) {
			return &list[i]
		}
	}
	return nil
}

// Judge compares what differed in a case, "" for nothing, with what is known of
// it.
func (d *Difference) Judge(differed string) error {
	switch {
	case d == nil && differed == "":
		return nil
	case d == nil:
		return errors.New(differed)
	case differed == "":
		return fmt.Errorf("the case holds here: take it out of environments.json (%s)", d.Why)
	}
	says, err := regexp.Compile("(?m)" + d.Says)
	if err != nil {
		return err
	}
	if !says.MatchString(differed) {
		return fmt.Errorf("the case differs otherwise than environments.json says (%s), want %q:\n%s", d.Why, d.Says, differed)
	}
	return nil
}
