// Package cli implements the command line of shale.
//
// Each command is defined in its own file, which contains the flags and the function
// that carries it out. The flags are defined once. The help, the completions, the man
// page and docs/cli.md are generated from these definitions. If docker has a command,
// its name, output and exit codes are those of docker.
//
// Standard output carries results only. Progress, warnings and errors go to standard
// error. Package argv normalizes the arguments, package format writes results, and
// package display draws progress. Package builder and the packages below it do the work
// of the commands.
package cli
