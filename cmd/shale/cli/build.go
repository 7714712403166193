package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/builder/frontend"
	"github.com/shale-build/shale/cmd/shale/cli/display"
	"github.com/shale-build/shale/storage"
)

func buildCommand() *cli.Command {
	return &cli.Command{
		Name:      "build",
		Usage:     "Build an image from a Dockerfile",
		ArgsUsage: "CONTEXT",
		Description: `CONTEXT is a directory, - for a tar archive or a Dockerfile on standard input,
or an http(s) URL of either. Progress goes to standard error; with --quiet the
ID of the image is all that is printed.`,
		Flags:  buildFlags(),
		Action: buildAction,
	}
}

func buildAction(c *cli.Context) error {
	if err := wantArguments(c, 1, 1); err != nil {
		return err
	}
	if err := refuseFlags(c); err != nil {
		return err
	}
	if err := refuseAttestations(c); err != nil {
		return err
	}
	if _, err := chosenIsolation(c); err != nil {
		return err
	}
	opts, err := buildOptions(c, os.LookupEnv)
	if err != nil {
		return usageError(c, err.Error())
	}
	results, err := resultOptions(c)
	if err != nil {
		return usageError(c, err.Error())
	}
	opts.Call, results.stdoutTaken = results.call.name, writesToStdout(opts.Exports)
	if err := refuseConsole(opts.Exports, c.App.Writer); err != nil {
		return usageError(c, err.Error())
	}
	opts.Stdin = c.App.Reader
	if err := addProxies(opts.BuildArgs, os.LookupEnv); err != nil {
		_, _ = fmt.Fprintf(c.App.ErrWriter, "shale: warning: no proxies are passed to steps: %v\n", err)
	}
	if builder.ReportsAlone(opts) {
		return reportAlone(c, opts, results)
	}
	return withStore(c, func(s *session) error { return build(c, s, opts, results) })
}

// refuseConsole returns an error if the build would write an archive to a terminal.
func refuseConsole(exports []builder.Export, stdout io.Writer) error {
	f, ok := display.Raw(stdout).(*os.File)
	if !ok || !writesToStdout(exports) || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return errors.New("refusing to write an archive to the terminal: give --output a dest=, or redirect standard output")
}

func writesToStdout(exports []builder.Export) bool {
	for _, e := range exports {
		if e.Dest == "-" {
			return true
		}
	}
	return false
}

// build removes the result files of an earlier build, then builds with the store of s.
func build(c *cli.Context, s *session, opts builder.Options, results resultFiles) error {
	if err := results.clear(); err != nil {
		return err
	}
	services, err := newServices(c, s, opts.Network)
	if err != nil {
		return err
	}
	if err := services.place(s, &opts, c.String("authfile")); err != nil {
		return errors.Join(err, services.close())
	}
	allowExport(c.Context, opts)
	return show(c, services, results, func(deps builder.Deps) (*builder.Result, error) {
		return builder.Build(c.Context, opts, deps)
	})
}

// reportAlone makes a report that needs neither namespaces nor a store.
func reportAlone(c *cli.Context, opts builder.Options, results resultFiles) error {
	if _, err := newLogger(c); err != nil {
		return err
	}
	if err := results.clear(); err != nil {
		return err
	}
	services := &services{description: `building with "shale"`, shortDescription: "shale", close: func() error { return nil }}
	return show(c, services, results, func(deps builder.Deps) (*builder.Result, error) {
		return builder.Report(c.Context, opts, deps)
	})
}

// show calls run, draws its progress and writes the result files. All progress is drawn
// and flushed before show returns.
func show(c *cli.Context, services *services, results resultFiles, run func(builder.Deps) (*builder.Result, error)) error {
	shown, err := display.New(display.Options{
		Mode: results.progress, Out: c.App.ErrWriter, ExpandWarnings: c.Bool(debugFlag),
		Description: services.description, ShortDescription: services.shortDescription,
	})
	if err != nil {
		return errors.Join(usageError(c, err.Error()), services.close())
	}
	deps := services.deps
	decisions := &decisions{Sink: shown}
	deps.Progress, deps.Stdout = decisions, display.Raw(c.App.Writer)
	res, err := run(deps)
	// ErrRemoved is ignored: if the store was removed during the build, its mounts and
	// files cannot be closed in order.
	if closeErr := services.close(); !errors.Is(err, storage.ErrRemoved) {
		err = errors.Join(err, closeErr)
	}
	if closeErr := shown.Close(); err == nil {
		err = closeErr
	}
	if c.Bool("explain") {
		err = errors.Join(err, decisions.print(c.App.ErrWriter))
	}
	if err != nil {
		return explain(c.Context, c.App.ErrWriter, err)
	}
	results.warnings = shown.Warnings()
	if results.progress != "quiet" && results.progress != "rawjson" {
		printUnused(c.App.ErrWriter, res.UnusedArgs)
	}
	if err := results.write(c.App.Writer, res); err != nil {
		return err
	}
	if res.Call != nil {
		return printCall(c, res.Call, results.call)
	}
	return nil
}

// explain prints the reason for a failed build, with the lines of the Dockerfile that
// caused the failure. If the user ended the build, explain prints no reason.
func explain(ctx context.Context, w io.Writer, err error) error {
	if ctx.Err() != nil {
		return err
	}
	if printErr := frontend.PrintError(w, err); printErr != nil {
		return errors.Join(err, fmt.Errorf("print error: %w", printErr))
	}
	return toldError{err}
}
