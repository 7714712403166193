// Package llb turns BuildKit's low-level build definition into a typed graph.
//
// A Definition is a list of marshalled operations that refer to one another by digest.
// Decode checks it completely and returns a Graph of Vertices, inputs first. Code that
// executes a Graph need not check again for unknown types, missing parts or indexes out
// of range. Decode returns an error for everything that this package does not support,
// because a build that ignores a field may silently do the wrong thing.
//
// Other packages run the operations, resolve sources and compute cache keys. The digest
// of a vertex identifies a step in one build; it is not a cache key.
package llb
