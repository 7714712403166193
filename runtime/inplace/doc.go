// Package inplace runs build steps in the root directory of the container that the build
// itself runs in. It is for containers in which the process must neither create
// namespaces nor mount file systems. One image at a time uses the root directory.
//
// Enter executes the program again from memory, so that steps can neither overwrite the
// program nor inspect the process. A Root moves the container's own files out of the root
// directory and the files of the image into it, and back. If a build was killed in
// between, the next OpenRoot restores the container's own files. Run runs one command.
// The command's first process kills every process that the command leaves running.
//
// Mount points in the container belong neither to the container's own files nor to the
// image, and stay in place. Examples are /proc, /dev, volumes and /etc/resolv.conf.
// Callers fill the root directory with the files of the image, and find the changes of a
// step.
package inplace
