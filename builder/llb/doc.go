// Package llb turns BuildKit's low-level build definition into a typed graph.
//
// A Definition is a list of marshalled operations that name one another by
// digest. Decode checks it completely and returns a Graph of Vertices, inputs
// first: what a Graph contains can be executed without looking again for
// unknown kinds, missing parts or indexes out of range. Anything this package
// does not know is an error and never ignored, because an ignored field would
// be a build that silently does something else.
//
// Running the operations, resolving sources and computing cache keys are left
// to others. Vertex digests identify steps within one build; they are no cache
// keys.
package llb
