// Package plain does with ordinary directories what overlay does by mounting,
// for where nothing may be mounted or an overlay cannot lie on the file system.
//
// Its nouns: a Listing is what a stack of layer directories shows, with the
// layer each file comes from. Link makes a directory that shows a listing, out
// of hard links, for those who only read or replace whole files. A Tree is a
// directory with copies that commands may write to; it knows what it holds, so
// that changing it to another listing touches only what differs, and a
// snapshot costs one stat per file: whatever a command does to a file gives its
// inode a new change time, which nobody can set (inode(7)). Changes puts what
// became different into an upper directory, as an overlay would have.
//
// Packing and keeping layers is left to overlay/diff and storage.
package plain
