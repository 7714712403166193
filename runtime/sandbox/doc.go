// Package sandbox runs one command in one container and removes everything that it
// created for the run.
//
// A Spec describes the command and its root file system. A Runner runs it through
// libcontainer, in this process and in the process's present user namespace, and returns
// the exit status. The container gets what Docker gives to a container: the same
// capabilities, seccomp profile, device nodes and masked paths, and its own namespaces.
// It gets no file descriptor, environment variable or process of the builder.
//
// The caller must prepare the root file system (overlays, caches, secrets), the network
// namespace and the files for /etc/hosts and /etc/resolv.conf. The package creates the
// mount points that are missing in the root file system before the run and removes them
// after it, see stubs.go.
//
// The container's first process is this program, executed again with the argument "init".
// A program must only import this package to make that work; this holds for test binaries
// too. Before the Go runtime starts in it, the first process executes a smaller program
// (cmd/shale-init), which the build embeds and the builder holds in memory (init.go,
// handover.c).
package sandbox
