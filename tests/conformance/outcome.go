package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// Outcome is the result of one build, without values that may differ between machines.
// expect.json holds one Outcome for each build.
type Outcome struct {
	// Error is the message of a failed build. Source are the lines that the message
	// points at.
	Error  string   `json:"error,omitempty"`
	Source []string `json:"source,omitempty"`

	// Status is the exit status of a report (--call) that prints its findings only to
	// standard output.
	Status int `json:"status,omitempty"`

	Warnings []string `json:"warnings,omitempty"`
	Steps    []string `json:"steps,omitempty"`
	// Log maps each step with output to its lines.
	Log    map[string][]string `json:"log,omitempty"`
	Stdout []string            `json:"stdout,omitempty"`
	Files  map[string][]string `json:"files,omitempty"`

	Outputs []Output `json:"outputs,omitempty"`
}

// Output is an exporter's output: images or a tree of files.
type Output struct {
	Images []Image           `json:"images,omitempty"`
	Tree   map[string]string `json:"tree,omitempty"`
	// Index describes the index. It is set if Case.Manifest is set.
	Index *Manifest `json:"index,omitempty"`
}

// Image describes the part of an image above its base.
type Image struct {
	Platform string `json:"platform,omitempty"`
	// Base is the image of the test bed that provides the first layers.
	Base    string         `json:"base,omitempty"`
	Config  map[string]any `json:"config"`  // the values that differ from the base's
	History []string       `json:"history"` // without the base's
	Created string         `json:"created,omitempty"`
	Count   int            `json:"layers"` // above the base
	// Layers list the entries of each layer. They are set if Case.Layers is set.
	Layers [][]string `json:"content,omitempty"`
	// Tree lists the changes of the flattened file system relative to the base.
	Tree     map[string]string `json:"tree"`
	Manifest *Manifest         `json:"manifest,omitempty"`
}

// Manifest describes a manifest or an index, without digests and sizes.
type Manifest struct {
	MediaType   string            `json:"mediaType"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Descriptor  map[string]string `json:"descriptor,omitempty"` // annotations of its descriptor
	Config      string            `json:"config,omitempty"`     // media type
	Layers      []string          `json:"layers,omitempty"`     // media types
	Manifests   []string          `json:"manifests,omitempty"`  // media types and platforms
}

// Encode returns outcomes in the format in which they are stored and compared.
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

// ReadExpected reads a file that was written by Encode and encodes it again, so that it
// has the current format.
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
