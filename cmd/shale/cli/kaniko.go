package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/cmd/shale/cli/argv"
	"github.com/shale-build/shale/cmd/shale/cli/kaniko"
	"github.com/shale-build/shale/storage/registry"
)

// kanikoName is the command that accepts the flags of kaniko. executorName is the name
// of the program in kaniko's image. If shale is called by this name, it runs this
// command.
const (
	kanikoName   = "kaniko"
	executorName = "executor"
)

// exitKaniko is the exit code that kaniko uses for its own failures.
const exitKaniko = 1

// asKaniko reports whether a command line is for kaniko, and returns it in the form of
// shale. For the subcommands that shale has too, it returns the command of shale.
func asKaniko(args []string) ([]string, bool) {
	switch {
	case len(args) > 0 && filepath.Base(args[0]) == executorName:
		args = append([]string{args[0], kanikoName}, args[1:]...)
	case len(args) < 2 || args[1] != kanikoName:
		return args, false
	}
	if len(args) > 2 && slices.Contains([]string{"login", "version"}, args[2]) {
		args = append([]string{args[0]}, args[2:]...)
	}
	return args, true
}

func kanikoCommand() *cli.Command {
	return &cli.Command{
		Name:            kanikoName,
		Usage:           "Build an image by the flags of kaniko's executor",
		ArgsUsage:       "[FLAGS]",
		Description:     "See shale kaniko --help and docs/kaniko.md. Called by the name executor, shale is this command.",
		SkipFlagParsing: true,
		HideHelp:        true,
		Action:          kanikoAction,
	}
}

func kanikoAction(c *cli.Context) error {
	args := c.Args().Slice()
	if len(args) > 0 && args[0] == "push" {
		return kanikoPush(c, args[1:])
	}
	command, err := kaniko.Parse(args, os.LookupEnv)
	if errors.Is(err, kaniko.ErrHelp) {
		return kaniko.Help(c.App.Writer)
	}
	if err != nil {
		return &argv.UsageError{Command: c.App.Name + " " + kanikoName, Message: err.Error()}
	}
	if err := c.Set(logLevelFlag, command.LogLevel()); err != nil {
		return err
	}
	return withStore(c, func(s *session) error { return kanikoBuild(c, s, command) })
}

func kanikoBuild(c *cli.Context, s *session, command *kaniko.Command) (err error) {
	plan, err := command.Prepare(c.Context, c.App.Reader)
	for _, w := range command.Warnings {
		_, _ = fmt.Fprintf(c.App.ErrWriter, "shale: warning: %s\n", w)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plan.Close()) }()
	plan.Registry.UserAgent, plan.Registry.Logger = "shale/"+Version, s.logger
	var res *builder.Result
	for _, opts := range plan.Builds {
		services, err := newServices(c, s, opts.Network)
		if err != nil {
			return err
		}
		if err := services.place(s, &opts, plan.LoginFiles...); err != nil {
			return errors.Join(err, services.close())
		}
		services.deps.Registry = registry.New(s.store, plan.Registry)
		opts.CacheGrace = builder.DefaultCacheGrace
		allowExport(c.Context, opts)
		err = show(c, services, resultFiles{progress: command.Progress()}, func(deps builder.Deps) (_ *builder.Result, err error) {
			res, err = builder.Build(c.Context, opts, deps)
			return res, err
		})
		if err != nil {
			return err
		}
	}
	digest, _ := res.Metadata["containerimage.digest"].(string)
	return command.Write(c.Context, digest)
}

// kanikoPush carries out "executor push": it pushes an archive or a layout unchanged.
func kanikoPush(c *cli.Context, args []string) error {
	command, path, err := kaniko.ParsePush(args, os.LookupEnv)
	if errors.Is(err, kaniko.ErrHelp) {
		return kaniko.Help(c.App.Writer)
	}
	if err != nil {
		return &argv.UsageError{Command: c.App.Name + " " + kanikoName, Message: err.Error()}
	}
	for _, w := range command.Warnings {
		_, _ = fmt.Fprintf(c.App.ErrWriter, "shale: warning: %s\n", w)
	}
	plan, err := command.PreparePush()
	if err != nil {
		return err
	}
	err = pushFile(c.Context, plan.Registry, path, command.Destinations())
	return errors.Join(err, plan.Close())
}

func pushFile(ctx context.Context, opts registry.Options, path string, names []string) error {
	client := registry.New(nil, opts)
	for _, name := range names {
		if err := client.PushFile(ctx, path, name); err != nil {
			return err
		}
	}
	return nil
}
