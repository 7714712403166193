// Package plain shows stacks of layers in ordinary directories. This is the native way,
// for environments in which overlays cannot be mounted, or in which the file system of
// the store does not support them.
//
// A Listing describes the merged contents of a stack of layer directories, with the layer
// of each file. Link fills a directory with hard links to these files, for users that
// only read or replace whole files. A Tree is a directory with copies, which commands may
// write to.
//
// A Tree remembers its contents. Changing it to another listing therefore touches only
// the files that differ, and a snapshot needs only one stat per file. Every change by a
// command gives the inode a new change time, which programs cannot set (inode(7)).
// Changes.Into writes the changes to an upper directory, as an overlay would have done.
//
// Package overlay/diff packs layers, and package storage stores them.
package plain
