// Package fileop carries out file operations: COPY, ADD, WORKDIR and heredocs.
//
// An operation is a list of actions on a destination, a mounted root file
// system that becomes a layer. Sources are views of package local, of a build
// context or of another stage. Neither side is trusted: images and contexts
// hold links that point anywhere. Destinations are resolved inside their root
// and written through directory descriptors, sources are opened without
// following links that were not resolved inside the source. Cache keys take
// Key and, for the content of inputs, Selections. Mounting and packing are left
// to others.
package fileop
