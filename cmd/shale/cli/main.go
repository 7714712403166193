package cli

import (
	"context"
	"errors"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/cmd/shale/cli/argv"
	"github.com/shale-build/shale/cmd/shale/cli/display"
)

// Streams holds the standard streams of the process.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main carries out a command line and returns the exit code. args[0] must be the name
// of the program. ctx should be from Signals: if a signal is the cause of its
// cancellation, the exit code is that of the signal.
func Main(ctx context.Context, args []string, streams Streams) int {
	args, kaniko := asKaniko(args)
	streams.Out, streams.Err = display.Text(streams.Out), display.Text(streams.Err)
	err := run(ctx, args, streams)
	report(ctx, streams.Err, err)
	code := exitCode(ctx, err)
	if kaniko && code == exitOwn {
		return exitKaniko
	}
	return code
}

func run(ctx context.Context, args []string, streams Streams) error {
	app := newApp(streams)
	app.Setup()
	for _, c := range app.Commands {
		complete(c, app.Name)
	}
	args, err := argv.Normalize(app, args, "run")
	if err != nil {
		return err
	}
	return app.RunContext(ctx, args)
}

// complete sets the fields of c and its subcommands that are the same for all commands.
func complete(c *cli.Command, parent string) {
	path := parent + " " + c.Name
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
		return &argv.UsageError{Command: path, Message: err.Error()}
	}
	// Otherwise, urfave/cli would take a first argument "help" for a subcommand, even
	// if the command has no subcommands.
	c.HideHelpCommand = len(c.Subcommands) == 0
	if len(c.Subcommands) > 0 && c.Action == nil {
		c.Action = cli.ShowSubcommandHelp
	}
	for _, sub := range c.Subcommands {
		complete(sub, path)
	}
}

// usageError returns an error for a mistake of the user in the arguments of c.
func usageError(c *cli.Context, message string) error {
	return &argv.UsageError{Command: c.App.Name + " " + commandPath(c), Message: message}
}

func isUsageError(err error) (*argv.UsageError, bool) {
	var usage *argv.UsageError
	ok := errors.As(err, &usage)
	return usage, ok
}

// commandPath returns the running command as the user calls it, for example "image ls".
func commandPath(c *cli.Context) string {
	var path string
	for _, ctx := range c.Lineage() {
		if ctx.Command == nil || ctx.Command.Name == "" || ctx.Command.Name == c.App.Name {
			continue
		}
		if path != "" {
			path = " " + path
		}
		path = ctx.Command.Name + path
	}
	return path
}
