package cli

import (
	"fmt"
	"log"
	"log/slog"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/runtime/userns"
	"github.com/shale-build/shale/storage"
)

// Names of the flags that every command accepts.
const (
	rootFlag     = "root"
	runrootFlag  = "runroot"
	logLevelFlag = "log-level"
	debugFlag    = "debug"
	versionFlag  = "version"
)

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: rootFlag, Usage: "keep images and layers in `DIR` instead of the default store"},
		&cli.StringFlag{Name: runrootFlag, Usage: "keep the store's volatile state in `DIR`"},
		&cli.StringFlag{Name: logLevelFlag, Value: "warn", Usage: "log messages of `LEVEL` and above: debug, info, warn or error"},
		&cli.BoolFlag{Name: debugFlag, Aliases: []string{"D"}, Usage: "log everything, and show warnings in full"},
		&cli.BoolFlag{Name: versionFlag, Aliases: []string{"v"}, Usage: "print the version"},
	}
}

// newLogger returns the logger that the global flags request. It also sets the level of
// the global loggers of the libraries. Libraries write some messages to package log,
// for example about unknown requests to an ssh agent. Steps and registries cause these
// messages, so they get the level debug.
func newLogger(c *cli.Context) (*slog.Logger, error) {
	level := slog.LevelDebug
	if !c.Bool(debugFlag) {
		if err := level.UnmarshalText([]byte(c.String(logLevelFlag))); err != nil {
			return nil, usageError(c, fmt.Sprintf("invalid log level %q: it is one of debug, info, warn, error", c.String(logLevelFlag)))
		}
	}
	logrus.SetOutput(c.App.ErrWriter)
	logrus.SetLevel(logrusLevel(level))
	handler := slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: level})
	log.SetFlags(0)
	log.SetOutput(slog.NewLogLogger(handler, slog.LevelDebug).Writer())
	return slog.New(handler), nil
}

// logrusLevel returns the level for the libraries. It is one step less verbose than the
// level of shale, because the libraries also warn about conditions that are not errors.
func logrusLevel(level slog.Level) logrus.Level {
	switch {
	case level <= slog.LevelDebug:
		return logrus.DebugLevel
	case level <= slog.LevelInfo:
		return logrus.WarnLevel
	default:
		return logrus.ErrorLevel
	}
}

// enter moves the process into its namespaces. If the process is outside of them, enter
// starts the program again and returns only if that fails. The new process calls enter
// again. Therefore the caller must not have read standard input or written output
// before.
func enter(c *cli.Context) (userns.Info, *slog.Logger, error) {
	logger, err := newLogger(c)
	if err != nil {
		return userns.Info{}, nil, err
	}
	isolation, err := chosenIsolation(c)
	if err != nil {
		return userns.Info{}, nil, err
	}
	info, err := isolation.enter(c.Context, logger)
	return info, logger, err
}

// session holds the open store for a command, and the environment of the process.
type session struct {
	store  *storage.Store
	logger *slog.Logger
	ids    userns.Info
	// layers describes how the layers of the store are shown to steps.
	layers layersWay
}

// inPlace reports whether steps run in the container's own root directory.
func (s *session) inPlace() bool { return s.ids.Mode == modeInPlace }

// withStore enters the namespaces, opens the store, calls do and closes the store.
func withStore(c *cli.Context, do func(*session) error) error {
	return openStore(c, (*storage.Location).Open, do)
}

// withStoreToRemove is withStore for commands that remove images or layers. If the disk
// is full, they may use the space that the store has reserved for them.
func withStoreToRemove(c *cli.Context, do func(*session) error) error {
	return openStore(c, (*storage.Location).OpenToRemove, func(s *session) error {
		defer s.store.KeepReserve()
		return do(s)
	})
}

func openStore(c *cli.Context, open func(*storage.Location, bool) (*storage.Store, error), do func(*session) error) (err error) {
	info, logger, err := enter(c)
	if err != nil {
		return err
	}
	location, err := storage.Locate(storage.Options{
		GraphRoot: c.String(rootFlag), RunRoot: c.String(runrootFlag), Recorded: info.SingleID(), Logger: logger,
	})
	if err != nil {
		return err
	}
	defer func() {
		if c.Context.Err() == nil {
			err = storage.NoSpace(err, location.GraphRoot(), os.TempDir())
		}
	}()
	layers, err := chooseLayers(location, info, overlay.Probe, logger)
	if err != nil {
		return err
	}
	if err := checkOwners(location, info, layers); err != nil {
		return err
	}
	store, err := open(location, layers.Native)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := store.Close(); err == nil {
			err = closeErr
		}
	}()
	return do(&session{store: store, logger: logger, ids: info, layers: layers})
}

// noArguments returns a usage error if there are positional arguments.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usageError(c, fmt.Sprintf("unexpected argument %q", c.Args().First()))
	}
	return nil
}

// wantArguments returns a usage error if the number of positional arguments is less
// than least or greater than most. If most is negative, there is no upper limit.
func wantArguments(c *cli.Context, least, most int) error {
	n := c.NArg()
	if n >= least && (most < 0 || n <= most) {
		return nil
	}
	switch {
	case least == most:
		return usageError(c, fmt.Sprintf("%q takes exactly %s", commandPath(c), plural(least, "argument")))
	case n < least:
		return usageError(c, fmt.Sprintf("%q takes at least %s", commandPath(c), plural(least, "argument")))
	}
	return usageError(c, fmt.Sprintf("%q takes at most %s", commandPath(c), plural(most, "argument")))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
