package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// Outcome is what one build came to, without what may differ between machines.
// It is what expect.json holds for each build.
type Outcome struct {
	// Error is the message of a build that failed, Source the lines that it
	// points at.
	Error  string   `json:"error,omitempty"`
	Source []string `json:"source,omitempty"`

	// Status is the exit status of a report (--call) that says it all on
	// standard output.
	Status int `json:"status,omitempty"`

	Warnings []string `json:"warnings,omitempty"`
	Steps    []string `json:"steps,omitempty"`
	// Log has the lines of each step that printed some.
	Log    map[string][]string `json:"log,omitempty"`
	Stdout []string            `json:"stdout,omitempty"`
	Files  map[string][]string `json:"files,omitempty"`

	Outputs []Output `json:"outputs,omitempty"`
}

// Output is what an exporter wrote: images, or a tree of files.
type Output struct {
	Images []Image           `json:"images,omitempty"`
	Tree   map[string]string `json:"tree,omitempty"`
	// Index describes the index, for cases that ask for manifests.
	Index *Manifest `json:"index,omitempty"`
}

// Image is an image above its base.
type Image struct {
	Platform string `json:"platform,omitempty"`
	// Base is the image of the test bed whose layers come first.
	Base    string         `json:"base,omitempty"`
	Config  map[string]any `json:"config"`  // where it differs from the base's
	History []string       `json:"history"` // without the base's
	Created string         `json:"created,omitempty"`
	Count   int            `json:"layers"` // above the base
	// Layers list their entries, for cases that ask for them.
	Layers [][]string `json:"content,omitempty"`
	// Tree is the flattened file system where it differs from the base's.
	Tree     map[string]string `json:"tree"`
	Manifest *Manifest         `json:"manifest,omitempty"`
}

// Manifest is what a manifest or an index says beside the content.
type Manifest struct {
	MediaType   string            `json:"mediaType"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Descriptor  map[string]string `json:"descriptor,omitempty"` // annotations of its descriptor
	Config      string            `json:"config,omitempty"`     // media type
	Layers      []string          `json:"layers,omitempty"`     // media types
	Manifests   []string          `json:"manifests,omitempty"`  // media types and platforms
}

// Encode gives outcomes the form in which they are kept and compared.
func Encode(outcomes []Outcome) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(outcomes); err != nil {
		return nil, fmt.Errorf("encode outcomes: %w", err)
	}
	return out.Bytes(), nil
}

// ReadExpected is the content of a file that Encode's result was written to,
// in the form in which it would be written now.
func ReadExpected(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var outcomes []Outcome
	if err := json.Unmarshal(data, &outcomes); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return Encode(outcomes)
}
