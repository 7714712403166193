// Package userns moves the process into the namespaces a build runs in.
//
// Enter replaces the process by a fresh image of itself (execve, same process
// id, arguments, descriptors and terminal) which, before the Go runtime starts
// its first thread, leaves the host's user and mount namespaces. There is no
// parent left outside that has to forward signals, translate exit codes or
// survive its child: whoever started shale signals and waits for the very
// process that builds. In the usual case even that second start is saved: a
// program can have the entry made, by C, at its first one.
//
// The nouns are a Mode, which says how identities are mapped, and an Info,
// which says which mode was had and why. What is mounted or run inside is for
// other packages; this one leaves behind a mount namespace from which nothing
// propagates to the host.
package userns
