package llb

import (
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Graph is a checked definition. It shares no memory with other graphs or with its
// definition.
type Graph struct {
	// Vertices are the operations that Target depends on, and Target itself. They are in
	// topological order: the inputs of an operation come before it.
	Vertices []*Vertex
	// Target is the result. Its Vertex is nil if the result is the empty file system
	// ("FROM scratch" without a step).
	Target Output
	// Sources are the files to which Locations refer.
	Sources []SourceFile
}

// Output is one of the file systems that an operation produces.
type Output struct {
	Vertex *Vertex
	// Index is below Vertex.Outputs().
	Index int
}

// Vertex is one operation. Exactly one of Source, Exec, File and Merge is set. The
// required messages in it are never nil.
type Vertex struct {
	// Digest identifies the operation in the build.
	Digest digest.Digest

	Source *pb.SourceOp
	Exec   *pb.ExecOp
	File   *pb.FileOp
	Merge  *pb.MergeOp

	// Inputs are the outputs to which the input indexes of the operation refer.
	Inputs []Output
	// Platform is nil if the operation does not depend on a platform.
	Platform *ocispec.Platform
	// Name is shown to users, for example "[build 2/4] RUN make".
	Name string
	// Group joins vertices that are shown as one.
	Group Group
	// IgnoreCache makes the operation run even if its result is in the cache.
	IgnoreCache bool
	// Description holds metadata of the front end. For example, the key
	// "com.docker.dockerfile.v1.command" holds the Dockerfile instruction.
	Description map[string]string
	// Resources are the limits of an Exec, nil if there are none.
	Resources *pb.LinuxResources
	// Locations are the positions of the operation in the Dockerfile.
	Locations []Location
}

// Group is a progress group. The zero value means no group.
type Group struct {
	ID, Name string
	// Weak is set if a vertex's own group takes precedence over this one.
	Weak bool
}

// SourceFile is a file from which the graph was made.
type SourceFile struct {
	Filename string
	Language string
	Data     []byte
}

// Location is a set of ranges in a source file.
type Location struct {
	File   *SourceFile
	Ranges []Range
}

// Range is a range in a source file. It includes both ends.
type Range struct {
	Start, End Position
}

// Position is a line, counted from 1, and a character in it, counted from 0.
type Position struct {
	Line, Character int
}

// Outputs returns the number of file systems that the operation produces.
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

// CustomName is the key in Description that holds the name of a vertex.
const CustomName = "llb.customname"
