// Package kaniko implements the command line of kaniko's executor: its flags, its
// environment variables, and the files that it reads and writes.
//
// Parse converts the arguments to a Command. Command.Prepare returns a Plan with the
// options of the builder and of the registry client. Command.Write writes the files
// that scripts read. If shale has a flag with the same effect, the package uses it. A
// flag that requests the normal behaviour of shale is accepted silently. A flag that
// can have no effect here is accepted with a warning, and so is an unknown flag. The
// caller must enter the namespaces, open the store and show the progress.
package kaniko
