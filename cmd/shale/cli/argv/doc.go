// Package argv brings a command line into the one form urfave/cli can parse.
//
// Docker's users write `build . -t app`, `-it`, `-tapp`, `--tag a -t b`;
// urfave/cli stops at the first positional argument, knows one spelling of a
// flag at a time and glues no value to a short flag. Normalize reads the
// arguments by the POSIX rules docker follows, against the flags the commands
// define, and writes every flag as --name=value before the positional
// arguments. It is also where unknown flags and commands are refused, because
// it is the first to see them. Converting values is left to urfave/cli.
package argv
