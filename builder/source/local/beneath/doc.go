// Package beneath opens files below a directory that may contain hostile symbolic links.
//
// A root is a file descriptor of a directory. Resolve takes a path as a process in the
// root would use it. For example, a symbolic link to /etc means the root's own etc. It
// returns a relative path without symbolic links and without "..". Open takes such a path
// and follows no symbolic links. If the path was changed after Resolve, Open fails
// instead of leaving the root.
package beneath
