// Package userns moves the process into the namespaces in which a build runs.
//
// Enter executes the program again in the same process (execve). The process keeps its
// id, arguments, file descriptors and terminal. Before the Go runtime starts its first
// thread, the new program leaves the host's user and mount namespaces. So no parent
// process remains outside that would have to forward signals, translate exit codes or
// outlive its child. The process that started shale signals and waits for the process
// that builds. In the usual case even the second execution is not needed: C code can
// enter the namespaces at the first start.
//
// A Mode is a way to map ids. An Info describes the mode that was entered and the reason
// for it. After Enter, the process is in a mount namespace from which no mount propagates
// to the host. Other packages mount file systems and run commands in it.
package userns
