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

// Environment is a kind of container in which shale builds. The suite itself runs
// outside, as root. If Name is empty, builds do not run in a container.
// tests/environments/container starts a separate container for each build.
type Environment struct {
	// Program is the path of the command container. Name is one of its environments.
	Program, Name string
	// Rootfs is the directory from which the root file system starts.
	Rootfs string
	// Shared is the directory of the host that the container sees too. Homes and working
	// directories are below it.
	Shared string
	// Inside keeps the store in the root file system of the container, which all builds
	// of a case share. Otherwise, the store is on a volume that all cases share.
	Inside bool
}

// user is the user id of the command in environments without root, as defined in
// tests/environments/container/environments.go.
const user = 1000

// uid returns the user id of the container's command.
func (e *Environment) uid() int {
	if strings.Contains(e.Name, "-user") {
		return user
	}
	return 0
}

// insideStore is the path of the store if Inside is set. Cases must not remove it.
const insideStore = "/shale-store"

// command returns the arguments that start a container for a build in dir. The command to
// run is appended to them.
func (e *Environment) command(dir string) []string {
	command := []string{e.Program, "-env", e.Name, "-rootfs", e.Rootfs, "-bind", e.Shared}
	if e.Inside {
		command = append(command, "-keep", filepath.Join(filepath.Dir(dir), "container"))
	}
	return append(command, "--")
}

// give makes the container's user the owner of all files below dir.
func (e *Environment) give(dir string) error {
	if e.Name == "" || e.uid() == 0 {
		return nil
	}
	// The parent directories are made by package testing, and only root may enter them.
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
		// A change of the owner clears the set-id bits.
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) == 0 || !info.Mode().IsRegular() {
			return nil
		}
		return os.Chmod(file, info.Mode()) //nolint:gosec // nobody else is in it
	})
}

// Difference is a set of cases that cannot give the expected result in some environments,
// for one reason.
type Difference struct {
	Cases        []string `json:"cases"`
	Environments []string `json:"environments"`
	// Why is the reason, as printed in docs/environments.md.
	Why string `json:"why"`
	// Says is a regular expression that must match the diff of the case.
	Says string `json:"says"`
}

//go:embed environments.json
var differences []byte

// LoadDifferences returns the differences of environments.json, which is embedded.
func LoadDifferences() ([]Difference, error) {
	var list []Difference
	decoder := json.NewDecoder(bytes.NewReader(differences))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&list); err != nil {
		return nil, fmt.Errorf("read environments.json: %w", err)
	}
	return list, nil
}

// Expected returns the known difference of a case in an environment, or nil if the case
// must pass there.
func Expected(list []Difference, environment, name string) *Difference {
	for i, d := range list {
		if slices.Contains(d.Environments, environment) && slices.Contains(d.Cases, name) {
			return &list[i]
		}
	}
	return nil
}

// Judge checks the diff of a case against the known difference d, which may be nil.
// differed is "" if the case passed. Judge returns an error if the case differs without a
// known difference, differs in another way, or passes although a difference is listed.
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
