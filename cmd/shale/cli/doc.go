// Package cli is shale's command line.
//
// Each command is defined in a file of its own: its flags beside the function
// that carries it out. The flags are defined once; help, completions, the man
// page and docs/cli.md are made from them. Names, output and exit codes follow
// docker's wherever docker has the command.
//
// Standard output carries results only; progress, warnings and errors go to
// standard error. Package argv brings the arguments into order, format writes
// results, display draws progress. What a command does is done by package
// builder and by those below it.
package cli
