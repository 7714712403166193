// Package exec runs RUN steps. It turns BuildKit's Exec operation into a container on top
// of the layers before it.
//
// It decides which mounts, variables, hosts and user the container has. Package
// runtime/sandbox runs the container, and package rootfs provides the file systems. Each
// mount source is opened inside its own root with openat2(2) and bind mounted from the
// file descriptor. So symbolic links in an image cannot lead out of its root.
package exec
