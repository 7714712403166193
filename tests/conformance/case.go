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

// Case is a scenario, as its case.json describes it.
type Case struct {
	Name string `json:"-"` // GROUP/NAME
	Dir  string `json:"-"`

	// Shows says in one sentence what holds when the case passes.
	Shows string `json:"shows"`
	// Ports names the scenarios of scenarios.json that the case stands for.
	Ports []string `json:"ports,omitempty"`
	// Client is "buildx" when the reference needs docker's own client, buildctl
	// having no words for it (contexts on standard input, --call, metadata).
	Client string `json:"client,omitempty"`
	// Flags are docker's, for every build of the case.
	Flags []string `json:"flags,omitempty"`
	// Env is added to the environment of every build.
	Env map[string]string `json:"env,omitempty"`
	// Servers are started for the case: "http" (see server.go).
	Servers []string `json:"servers,omitempty"`
	// Builds follow each other with one cache. Empty means one plain build.
	Builds []Build `json:"builds,omitempty"`

	// Varies are patterns of paths whose content is another each time. Only
	// which builds of the case agree in it is compared: cache hits are seen so.
	Varies []string `json:"varies,omitempty"`
	// Mtimes are patterns of paths whose modification time is compared.
	Mtimes []string `json:"mtimes,omitempty"`
	// Times compares the times in the config and its history.
	Times bool `json:"times,omitempty"`
	// Layers compares what each layer above the base lists.
	Layers bool `json:"layers,omitempty"`
	// Log compares what the RUN steps print, step by step.
	Log bool `json:"log,omitempty"`
	// Steps compares the names of the steps.
	Steps bool `json:"steps,omitempty"`
	// Manifest compares media types and annotations of manifests and index.
	Manifest bool `json:"manifest,omitempty"`
	// Differs is the written reason why shale does otherwise on purpose. What
	// it does is then in expect.shale.json, beside the reference's.
	Differs string `json:"differs,omitempty"`
}

// Build is one run of the builder.
type Build struct {
	// Before is a shell script, run in the working directory of the case.
	Before string `json:"before,omitempty"`
	// Flags are added to those of the case.
	Flags []string `json:"flags,omitempty"`
	// Context is "context" by default; "-" takes Stdin, a URL what it leads to.
	Context string `json:"context,omitempty"`
	// Stdin is a file for standard input.
	Stdin string `json:"stdin,omitempty"`
	// Outputs are docker's --output without dest; one "type=oci" by default.
	// ["none"] builds without any, for what is not an image (--call).
	Outputs []string `json:"outputs,omitempty"`
	// Collect are files that the build writes, compared as text.
	Collect []string `json:"collect,omitempty"`
	// Stdout compares what the builder prints on standard output.
	Stdout bool `json:"stdout,omitempty"`
}

// Group is the first half of the name.
func (c *Case) Group() string {
	group, _, _ := strings.Cut(c.Name, "/")
	return group
}

// Load reads the cases below dir, sorted by name.
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
