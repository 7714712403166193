// Package progress carries what a build does to whoever shows it.
//
// Its nouns are BuildKit's: a Vertex is one step of the build graph, a Status
// is one activity inside a step (a blob being pulled, say), a Log is output of
// a step and a Warning is a lint finding. The engine emits them through a Sink;
// how they are drawn (live view, plain text, JSON) is the business of the
// command line.
package progress

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Vertex is the state of one step. It is sent again whenever the state
// changes; the latest one wins.
type Vertex struct {
	// Digest identifies the step within the build.
	Digest digest.Digest
	// Inputs are the steps it depends on.
	Inputs []digest.Digest
	// Name is what users see: "[build 2/4] RUN make".
	Name string
	// Group joins steps that are shown as one, "" for none.
	Group string
	// Started and Completed are nil until they happen.
	Started, Completed *time.Time
	// Cached is set when the result came from the cache.
	Cached bool
	// Decision is "cached" or "ran" for a step that has a cache key, and
	// Reason says why in words.
	Decision, Reason string
	// Error is the failure of this step, "" for none.
	Error string
}

// Status is one activity within a step.
type Status struct {
	// ID names the activity within its vertex: "extracting sha256:…".
	ID     string
	Vertex digest.Digest
	// Name is a remark shown beside ID, often empty.
	Name string
	// Current and Total count bytes; Total is 0 when unknown.
	Current, Total int64
	// Timestamp is when this state was read.
	Timestamp time.Time
	// Started and Completed are nil until they happen.
	Started, Completed *time.Time
}

// Log is a piece of output of a step. The receiver may keep Data.
type Log struct {
	Vertex digest.Digest
	// Stream is 1 for stdout and 2 for stderr.
	Stream    int
	Data      []byte
	Timestamp time.Time
}

// Position is a range of lines in a source file, both ends included and
// counted from 1.
type Position struct {
	Line, EndLine int
}

// Warning is a finding about the Dockerfile.
type Warning struct {
	Vertex digest.Digest
	// Level is 1 for a lint finding.
	Level  int
	Short  string
	Detail []string
	URL    string
	// File, Source and Ranges locate the finding; Source is the whole file.
	File   string
	Source []byte
	Ranges []Position
}

// Sink receives the events of a build. Its methods are called from many
// goroutines and must not block for long.
type Sink interface {
	Vertex(Vertex)
	Status(Status)
	Log(Log)
	Warning(Warning)
}

// Discard is the Sink that shows nothing.
var Discard Sink = discard{}

type discard struct{}

func (discard) Vertex(Vertex)   {}
func (discard) Status(Status)   {}
func (discard) Log(Log)         {}
func (discard) Warning(Warning) {}
