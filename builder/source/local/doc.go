// Package local reads directories of the host: build contexts, named contexts
// and mounted root file systems.
//
// A Tree is a view of one directory, narrowed by the patterns of an ignore file
// and by the paths a build follows. An Entry keeps what it looked like when its
// directory was listed. A tree of usual size is read once and kept; a larger one
// is read as it is walked, again for every operation, and what differs from the
// time before is noticed: memory does not grow with the number of files. A
// Selection says what an operation reads of a Tree; Pick finds the entries and
// Digest hashes them for a cache key. An Index remembers the hashes of files
// between builds. Copying is left to package fileop.
package local
