package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Case is a test case, as described by its case.json.
type Case struct {
	Name string `json:"-"` // GROUP/NAME
	Dir  string `json:"-"`

	// Shows states in one sentence the behavior that a passing case proves.
	Shows string `json:"shows"`
	// Ports names the scenarios of scenarios.json that the case covers.
	Ports []string `json:"ports,omitempty"`
	// Client is "buildx" if the reference needs docker's own client, because buildctl has
	// no equivalent option (contexts on standard input, --call, metadata).
	Client string `json:"client,omitempty"`
	// Flags are flags of docker build, used in every build of the case.
	Flags []string `json:"flags,omitempty"`
	// Env is added to the environment of every build.
	Env map[string]string `json:"env,omitempty"`
	// Servers are started for the case: "http" (see server.go).
	Servers []string `json:"servers,omitempty"`
	// Builds run in order and share one cache. If there are none, Load adds one build
	// without options.
	Builds []Build `json:"builds,omitempty"`

	// Varies are patterns of paths with content that differs in each run. The content
	// itself is not compared, only which builds of the case have the same content. This
	// shows cache hits.
	Varies []string `json:"varies,omitempty"`
	// Mtimes are patterns of paths. Their modification times are compared.
	Mtimes []string `json:"mtimes,omitempty"`
	// Times compares the times in the config and its history.
	Times bool `json:"times,omitempty"`
	// Layers compares the list of entries of each layer above the base.
	Layers bool `json:"layers,omitempty"`
	// Log compares the output of each RUN step.
	Log bool `json:"log,omitempty"`
	// Steps compares the names of the steps.
	Steps bool `json:"steps,omitempty"`
	// Manifest compares media types and annotations of manifests and index.
	Manifest bool `json:"manifest,omitempty"`
	// Differs is the reason if shale deliberately differs from the reference. shale's own
	// result is then in expect.shale.json, beside the reference's expect.json.
	Differs string `json:"differs,omitempty"`
}

// Build is one run of the builder.
type Build struct {
	// Before is a shell script that runs in the working directory of the case.
	Before string `json:"before,omitempty"`
	// Flags are added to those of the case.
	Flags []string `json:"flags,omitempty"`
	// Context is "context" by default. "-" reads the context from Stdin; a URL is
	// fetched.
	Context string `json:"context,omitempty"`
	// Stdin is the name of a file for standard input.
	Stdin string `json:"stdin,omitempty"`
	// Outputs are values of docker's --output without dest. The default is one
	// "type=oci". ["none"] exports nothing, for builds that do not make an image
	// (--call).
	Outputs []string `json:"outputs,omitempty"`
	// Collect are files that the build writes. They are compared as text.
	Collect []string `json:"collect,omitempty"`
	// Stdout compares the builder's standard output.
	Stdout bool `json:"stdout,omitempty"`
}

// Group returns the first part of the case's name.
func (c *Case) Group() string {
	group, _, _ := strings.Cut(c.Name, "/")
	return group
}

// Load returns the cases below dir, sorted by name. It returns an error if there are
// none, or if a case.json has an unknown field or no "shows".
func Load(dir string) ([]*Case, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "*", "case.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no case below %s: %w", dir, fs.ErrNotExist)
	}
	slices.Sort(files)
	cases := make([]*Case, 0, len(files))
	for _, file := range files {
		c, err := load(dir, file)
		if err != nil {
			return nil, err
		}
		cases = append(cases, c)
	}
	return cases, nil
}

func load(root, file string) (*Case, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	c := &Case{Dir: filepath.Dir(file)}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(c); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if c.Name, err = filepath.Rel(root, c.Dir); err != nil {
		return nil, err
	}
	if c.Shows == "" {
		return nil, fmt.Errorf("read %s: \"shows\" is missing", file)
	}
	if len(c.Builds) == 0 {
		c.Builds = []Build{{}}
	}
	return c, nil
}
