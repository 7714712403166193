// Package identity finds users and groups in the root file system of an image.
//
// A user specification is what USER, RUN and --chown take: a name or number,
// with or without a group. The image's etc/passwd and etc/group are read as
// data of a stranger: links in them stay inside the root, only regular files
// are opened, and no more than a bound is read. Switching to a user is left to
// the runtime.
package identity
