package llb

import (
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Graph is a checked definition. Graphs share nothing with one another nor
// with the definition they were decoded from.
type Graph struct {
	// Vertices are the operations Target depends on, itself included, in
	// topological order: inputs come before what uses them.
	Vertices []*Vertex
	// Target is the result. Its Vertex is nil when the result is the empty
	// file system ("FROM scratch" without a step).
	Target Output
	// Sources are the files that Locations point into.
	Sources []SourceFile
}

// Output is one of the file systems an operation produces.
type Output struct {
	Vertex *Vertex
	// Index is below Vertex.Outputs().
	Index int
}

// Vertex is one operation. Exactly one of Source, Exec, File and Merge is set.
// Messages within it are complete: the required ones are never nil.
type Vertex struct {
	// Digest identifies the operation within the build.
	Digest digest.Digest

	Source *pb.SourceOp
	Exec   *pb.ExecOp
	File   *pb.FileOp
	Merge  *pb.MergeOp

	// Inputs are what the input indexes of the operation refer to.
	Inputs []Output
	// Platform is nil when the operation does not depend on one.
	Platform *ocispec.Platform
	// Name is what users see: "[build 2/4] RUN make".
	Name string
	// Group joins vertices that are shown as one.
	Group Group
	// IgnoreCache asks to run the operation even if its result is known.
	IgnoreCache bool
	// Description holds the front end's remarks, such as the Dockerfile
	// instruction under "com.docker.dockerfile.v1.command".
	Description map[string]string
	// Resources are the limits of an Exec, nil for none.
	Resources *pb.LinuxResources
	// Locations are where the operation stands in the Dockerfile.
	Locations []Location
}

// Group is a progress group; the zero value means none.
type Group struct {
	ID, Name string
	// Weak groups give way to those of the vertices' own.
	Weak bool
}

// SourceFile is a file the graph was made from.
type SourceFile struct {
	Filename string
	Language string
	Data     []byte
}

// Location is a place in a source file.
type Location struct {
	File   *SourceFile
	Ranges []Range
}

// Range is an area in a source file, both ends included.
type Range struct {
	Start, End Position
}

// Position counts lines from 1 and characters from 0.
type Position struct {
	Line, Character int
}

// Outputs returns the number of file systems the operation produces.
func (v *Vertex) Outputs() int {
	switch {
	case v.Exec != nil:
		return execOutputs(v.Exec)
	case v.File != nil:
		return fileOutputs(v.File)
	default:
		return 1
	}
}

// CustomName is the description key that holds a vertex's name.
const CustomName = "llb.customname"
