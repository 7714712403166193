// Package fileop runs file operations: COPY, ADD, WORKDIR and heredocs.
//
// An operation is a list of actions on a destination, which is a mounted root file system
// that becomes a layer. Sources are trees of package local: views of a build context or
// of another stage. Neither side is trusted, because images and build contexts may
// contain symbolic links to any path. Destinations are resolved inside their root and
// written through file descriptors of directories. Sources are opened without following
// symbolic links, except for links that were resolved inside the source. Cache keys are
// computed from Key and, for the content of inputs, from Selections. The caller mounts
// the file systems and packs the result.
package fileop
