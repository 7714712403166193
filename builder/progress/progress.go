// Package progress carries the events of a build to the display.
//
// It uses BuildKit's terms. A Vertex is a step of the build graph. A Status is an
// activity in a step, for example the pull of a blob. A Log is output of a step, and a
// Warning is a lint finding. The build sends them to a Sink. The command line implements
// the ways to show them: live view, plain text or JSON.
package progress

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Vertex is the state of a step. It is sent again each time the state changes, and
// replaces the earlier state.
type Vertex struct {
	// Digest identifies the step in the build.
	Digest digest.Digest
	// Inputs are the steps that it depends on.
	Inputs []digest.Digest
	// Name is shown to users, for example "[build 2/4] RUN make".
	Name string
	// Group joins steps that are shown as one, "" if there is none.
	Group string
	// Started and Completed are nil until the step has started or completed.
	Started, Completed *time.Time
	// Cached is true if the result came from the cache.
	Cached bool
	// Decision is "cached" or "ran" if the step has a cache key, and Reason explains it
	// in words.
	Decision, Reason string
	// Error is the error of this step, "" if there is none.
	Error string
}

// Status is one activity in a step.
type Status struct {
	// ID identifies the activity in its vertex, for example "extracting sha256:…".
	ID     string
	Vertex digest.Digest
	// Name is additional text beside ID, often empty.
	Name string
	// Current and Total are in bytes. Total is 0 if it is not known.
	Current, Total int64
	// Timestamp is the time of this state.
	Timestamp time.Time
	// Started and Completed are nil until the activity has started or completed.
	Started, Completed *time.Time
}

// Log is a part of the output of a step. The receiver owns Data.
type Log struct {
	Vertex digest.Digest
	// Stream is 1 for stdout and 2 for stderr.
	Stream    int
	Data      []byte
	Timestamp time.Time
}

// Position is a range of lines in a source file, counted from 1. It includes both ends.
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
	// File, Source and Ranges are the location of the finding. Source is the whole file.
	File   string
	Source []byte
	Ranges []Position
}

// Sink receives the events of a build. Its methods must be safe for concurrent use and
// must not block for long.
type Sink interface {
	Vertex(Vertex)
	Status(Status)
	Log(Log)
	Warning(Warning)
}

// Discard is a Sink that ignores all events.
var Discard Sink = discard{}

type discard struct{}

func (discard) Vertex(Vertex)   {}
func (discard) Status(Status)   {}
func (discard) Log(Log)         {}
func (discard) Warning(Warning) {}
