// Package sandbox runs one command in one container and leaves nothing behind.
//
// A Spec says what to run over which root filesystem; a Runner runs it through
// libcontainer, in this process, inside the user namespace the process already
// has, and returns the exit code. The container gets what Docker gives it: its
// capabilities, seccomp profile, device nodes and masked paths, namespaces of
// its own, and no descriptor, variable or process of the builder's.
//
// Preparing the root filesystem (overlays, caches, secrets), the network
// namespace and the files at /etc/hosts and /etc/resolv.conf are left to
// others. What must exist in the root filesystem for something to be mounted
// on it is made before the run and removed after it, see stubs.go.
//
// The container's first process is this program executed again with the
// argument init; importing the package is enough to make that work, in test
// binaries as well. Before Go starts in it, it goes on as a smaller program that
// the build embeds and the builder holds in memory (init.go, handover.c).
package sandbox
