// Package overlay makes the mounts a build step works on: an overlayfs stack
// whose upper directory becomes the step's layer, and bind mounts that start
// from open descriptors.
//
// Its nouns are a Mount (an ordered stack of lower directories, optionally
// with an upper directory that takes the changes), a bind (one directory or
// file shown at a second place) and Features (what the running kernel lets
// this process mount).
//
// Every overlay is mounted so that its upper directory is complete in itself
// and can serve as a lower directory later, under any other stack: no
// metacopy, no directory redirects, no inode index. See
// https://docs.kernel.org/filesystems/overlayfs.html.
//
// The package leaves to its callers where the directories lie, who owns them,
// entering the namespaces in which mounting is allowed, and turning an upper
// directory into an image layer, which package overlay/diff does.
package overlay
