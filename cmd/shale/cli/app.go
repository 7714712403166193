package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

const description = `shale turns a Dockerfile into an OCI image without a daemon and without root.
Images are kept in the store podman, buildah and skopeo use. A name without a
registry means an image that was built here, and only where there is none one
of docker.io or of the registries that registries.conf names.

Exit codes: 0 on success; the exit status of the step when a RUN failed, and of
the container for shale run; 130 and 143 when ended by SIGINT and SIGTERM; 125
for every other failure.

SIGTERM gives the running steps of a build three seconds to end, SIGINT none. Ten
seconds after a signal a build has ended, unless --cache-grace lets it write its
cache; a second signal ends it at once.`

// newApp returns the definition of the command line.
func newApp(streams Streams) *cli.App {
	return &cli.App{
		Name:                      "shale",
		Usage:                     "Build container images, rootless and daemonless",
		Description:               description,
		Reader:                    streams.In,
		Writer:                    streams.Out,
		ErrWriter:                 streams.Err,
		HideVersion:               true,
		EnableBashCompletion:      true,
		DisableSliceFlagSeparator: true,
		Flags:                     globalFlags(),
		Action:                    rootAction,
		// Main prints the error and chooses the exit code.
		ExitErrHandler: func(*cli.Context, error) {},
		Commands: []*cli.Command{
			buildCommand(),
			kanikoCommand(),
			imagesCommand(),
			historyCommand(),
			inspectCommand(),
			tagCommand(),
			rmiCommand(),
			pullCommand(),
			pushCommand(),
			saveCommand(),
			loadCommand(),
			runCommand(),
			loginCommand(),
			logoutCommand(),
			imageCommand(),
			builderCommand(),
			systemCommand(),
			infoCommand(),
			versionCommand(),
			doctorCommand(),
			stepProbeCommand(),
			completionCommand(),
			manCommand(),
		},
	}
}

// rootAction runs if the command line names no command. It prints the version if
// --version is set, otherwise the help.
func rootAction(c *cli.Context) error {
	if c.Bool(versionFlag) {
		_, err := fmt.Fprintf(c.App.Writer, "shale version %s, build %s\n", Version, shortCommit())
		return err
	}
	return cli.ShowAppHelp(c)
}

// imageCommand returns the command that groups the subcommands about images, as docker
// does.
func imageCommand() *cli.Command {
	return &cli.Command{
		Name:  "image",
		Usage: "Manage images",
		Subcommands: []*cli.Command{
			named(buildCommand(), "build"),
			named(historyCommand(), "history"),
			named(imageInspectCommand(), "inspect"),
			named(loadCommand(), "load"),
			named(imagesCommand(), "ls", "list"),
			imagePruneCommand(),
			named(pullCommand(), "pull"),
			named(pushCommand(), "push"),
			named(rmiCommand(), "rm", "remove"),
			named(saveCommand(), "save"),
			named(tagCommand(), "tag"),
		},
	}
}

// builderCommand returns the command that groups the subcommands about builds, as
// docker does.
func builderCommand() *cli.Command {
	return &cli.Command{
		Name:        "builder",
		Usage:       "Manage builds",
		Subcommands: []*cli.Command{named(buildCommand(), "build"), builderDuCommand(), builderPruneCommand()},
	}
}

// systemCommand returns the command that groups the subcommands about the store as a
// whole.
func systemCommand() *cli.Command {
	return &cli.Command{
		Name:        "system",
		Usage:       "Manage the store",
		Subcommands: []*cli.Command{dfCommand(), named(infoCommand(), "info"), systemPruneCommand()},
	}
}

func named(c *cli.Command, name string, aliases ...string) *cli.Command {
	c.Name, c.Aliases, c.Category = name, aliases, ""
	return c
}
