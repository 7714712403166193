// Package beneath opens files below a directory that may hold hostile symbolic
// links.
//
// A root is a directory descriptor. Resolve turns a path as it is meant inside
// the root, where a link to /etc means the root's own etc, into a relative path
// without links and without "..". Open takes such a path and refuses to follow
// any link at all, so that a path that stops being what Resolve found fails
// instead of leaving the root. What is done with the opened files is left to
// the callers.
package beneath
