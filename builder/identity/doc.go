// Package identity finds users and groups in the root file system of an image.
//
// A user specification is the argument of USER, RUN and --chown: a name or number, with
// or without a group. The image's etc/passwd and etc/group are untrusted. Symbolic links
// are resolved inside the root, only regular files are opened, and the size of the files
// is limited. The runtime switches to the user.
package identity
