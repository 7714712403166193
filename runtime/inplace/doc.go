// Package inplace builds inside a container that may neither make namespaces
// nor mount: the root directory of the container itself becomes that of the
// steps, one image at a time.
//
// Enter makes the process one that a step can neither overwrite, as it runs
// from memory, nor look into. A Root moves the container's own files out of the
// way and the files of the image into their place and back, and finds out at
// the next start that it was killed in between. Run runs one command, with a
// first process that ends whatever the command leaves running.
//
// What is mounted in the container stays where it is and is nobody's: /proc,
// /dev, volumes, /etc/resolv.conf. Filling the tree and finding out what a step
// changed is left to others.
package inplace
