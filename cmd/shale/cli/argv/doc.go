// Package argv converts a command line to the only form that urfave/cli can parse.
//
// Users of docker write `build . -t app`, `-it`, `-tapp` or `--tag a -t b`. urfave/cli
// stops at the first positional argument, refuses a flag that is given under two of its
// names, and does not accept a value attached to a short flag. Normalize parses the
// arguments by the POSIX rules that docker follows, using the flags that the commands
// define. It writes every flag as --name=value before the positional arguments. It also
// refuses unknown flags and commands, because it reads the arguments before urfave/cli.
// urfave/cli converts the values.
package argv
