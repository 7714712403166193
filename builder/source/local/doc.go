// Package local reads directories of the host: build contexts, named contexts and mounted
// root file systems.
//
// A Tree is a view of one directory. The patterns of an ignore file and the paths that a
// build uses can hide files. An Entry keeps the metadata of a file from the time when its
// directory was listed. A tree of the usual size is read once and kept in memory. A
// larger tree is read again by every operation, so that memory use does not grow with the
// number of files. Differences between two reads are detected. A Selection names the
// files that an operation reads from a Tree. Pick finds the entries, and Digest hashes
// them for a cache key. An Index caches the hashes of files between builds. Package
// fileop copies the files.
package local
