// Package overlay mounts the file systems of build steps. It mounts overlayfs stacks; the
// upper directory of a stack becomes the layer of the step. It also makes bind mounts
// from open file descriptors.
//
// A Mount describes an ordered stack of lower directories, optionally with an upper
// directory that receives the changes. Bind shows one directory or file at a second path.
// Features lists the mount features of the running kernel that this process may use.
//
// Every overlay is mounted so that its upper directory does not depend on the lower
// directories. It can later be a lower directory of any other stack. For this reason
// metacopy, directory redirects and the inode index are off. See
// https://docs.kernel.org/filesystems/overlayfs.html.
//
// The caller chooses the directories and their owners, and enters the namespaces in which
// it may mount. Package overlay/diff turns an upper directory into an image layer.
package overlay
