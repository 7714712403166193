package cli

import (
	"context"
	"errors"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/cmd/shale/cli/argv"
	"github.com/shale-build/shale/cmd/shale/cli/display"
)

// Streams are the standard streams of the process.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main carries out a command line, the first word of which is the program's
// name, and returns the exit code. The cause of ctx's cancellation, when it is
// a signal received through Signals, decides the exit code of what it ends.
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

// complete gives c and its subcommands what all commands have in common.
func complete(c *cli.Command, parent string) {
	path := parent + " " + c.Name
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
		return &argv.UsageError{Command: path, Message: err.Error()}
	}
	// A command without subcommands must not take its first argument, which
	// may be called help, for one.
	c.HideHelpCommand = len(c.Subcommands) == 0
	if len(c.Subcommands) > 0 && c.Action == nil {
		c.Action = cli.ShowSubcommandHelp
	}
	for _, sub := range c.Subcommands {
		complete(sub, path)
	}
}

// usageError is a mistake of the user in calling c.
func usageError(c *cli.Context, message string) error {
	return &argv.UsageError{Command: c.App.Name + " " + commandPath(c), Message: message}
}

func isUsageError(err error) (*argv.UsageError, bool) {
	var usage *argv.UsageError
	ok := errors.As(err, &usage)
	return usage, ok
}

// commandPath is how the running command is called: "image ls".
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
