// Package exec carries out RUN: it turns BuildKit's Exec operation into a
// container over the layers before it.
//
// It decides what the container sees: where each mount comes from, who the
// process is, which variables and hosts it has. The container itself is package
// runtime/sandbox's, the file systems are package rootfs's. Every mount source
// is found inside its own root by openat2(2) and bound from the descriptor, so
// no symbolic link in an image leads out of it.
package exec
