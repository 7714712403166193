package kaniko

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// LookupEnv is os.LookupEnv.
type LookupEnv func(name string) (string, bool)

// Command is a command line that was understood.
type Command struct {
	// Warnings are about flags that have no effect, one line each.
	Warnings []string

	flags
	env LookupEnv
}

// ErrHelp tells that the command line asks for help.
var ErrHelp = pflag.ErrHelp

// Parse understands the arguments of kaniko's executor. Its errors are the
// user's.
func Parse(args []string, env LookupEnv) (*Command, error) {
	c := &Command{env: env}
	set, known := newFlagSet(&c.flags)
	args, unknown := dropUnknown(set, args)
	for _, name := range unknown {
		c.warn("%s has no effect: kaniko's executor has no such flag, as far as is known here", name)
	}
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: values that are true or false are given as --flag=false", set.Arg(0))
	}
	for _, f := range known {
		if given := set.Lookup(f.name); given.Changed {
			c.warnAbout(f, given.Value.String())
		}
	}
	if err := c.addEnvironment(); err != nil {
		return nil, err
	}
	return c, c.check()
}

// Help writes what the flags are.
func Help(w io.Writer) error {
	set, _ := newFlagSet(&flags{})
	_, err := fmt.Fprintf(w, `Build an image as kaniko's executor does.

Usage:
  shale kaniko [FLAGS]
  executor [FLAGS]             where shale is called by this name
  executor push FILE|DIRECTORY -d NAME[:TAG]
  executor login REGISTRY -u USER --password-stdin
  executor version

Flags:
%s`, set.FlagUsages())
	return err
}

func newFlagSet(v *flags) (*pflag.FlagSet, []flag) {
	set := pflag.NewFlagSet("executor", pflag.ContinueOnError)
	set.SortFlags = false
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	known := table()
	for _, f := range known {
		f.bind(set, f, v)
		if f.instead != "" {
			set.Lookup(f.name).Hidden = true
		}
	}
	return set, known
}

func (c *Command) warn(format string, args ...any) {
	c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...))
}

func (c *Command) warnAbout(f flag, value string) {
	if f.instead != "" {
		c.warn("--%s is an old name: use --%s", f.name, f.instead)
	}
	if f.noEffect != "" && !slices.Contains(f.accepted, value) {
		c.warn("--%s has no effect: %s", f.name, f.noEffect)
	}
}

// dropUnknown takes the flags that set does not know out of args, with the values
// that stand behind them: the executor has no other arguments.
func dropUnknown(set *pflag.FlagSet, args []string) (kept, unknown []string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(kept, args[i:]...), unknown
		}
		f, name, glued := lookup(set, arg)
		switch {
		case name == "": // no flag
		case f == nil:
			unknown = append(unknown, name)
			if !glued && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++
			}
			continue
		case !glued && f.NoOptDefVal == "" && i+1 < len(args):
			kept = append(kept, arg)
			i++
			arg = args[i]
		}
		kept = append(kept, arg)
	}
	return kept, unknown
}

// lookup finds the flag that arg is; glued tells that its value is in arg, too.
// Help is not its business.
func lookup(set *pflag.FlagSet, arg string) (f *pflag.Flag, name string, glued bool) {
	switch {
	case arg == "--help", arg == "-h", arg == "-", !strings.HasPrefix(arg, "-"):
		return nil, "", false
	case strings.HasPrefix(arg, "--"):
		name, _, glued = strings.Cut(arg[2:], "=")
		return set.Lookup(name), "--" + name, glued
	}
	// None of the short flags is a boolean: what follows is the value.
	return set.ShorthandLookup(arg[1:2]), arg[:2], len(arg) > 2
}

// addEnvironment reads the variables that stand for flags. They win, as they do
// with kaniko.
func (c *Command) addEnvironment() error {
	if v, ok := c.env("KANIKO_REGISTRY_MIRROR"); ok && v != "" {
		c.mirrors = append(c.mirrors, v)
	}
	if v, ok := c.env("KANIKO_REGISTRY_MAP"); ok && v != "" {
		c.maps = append(c.maps, v)
	}
	if v, ok := c.env("KANIKO_NO_PUSH"); ok {
		noPush, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("invalid KANIKO_NO_PUSH %q: it is true or false", v)
		}
		c.noPush = noPush
	}
	if v, ok := c.env("KANIKO_DIR"); ok && c.kanikoDir == "" {
		c.kanikoDir = v
	}
	if c.kanikoDir == "" {
		c.kanikoDir = defaultDir
	}
	return nil
}

// defaultDir is where kaniko's image has what is the executor's own.
const defaultDir = "/kaniko"

// check refuses what contradicts itself, as kaniko does.
func (c *Command) check() error {
	switch {
	case !c.noPush && len(c.destinations) == 0:
		return errors.New("you must provide --destination, or use --no-push")
	case c.cache && c.cacheRepo == "" && len(c.destinations) == 0:
		return errors.New("if using cache with --no-push, specify cache repo with --cache-repo")
	case c.nameDigestFile != "" && len(c.destinations) == 0:
		return errors.New("you must provide --destination if setting --image-name-with-digest-file")
	case c.tagDigestFile != "" && len(c.destinations) == 0:
		return errors.New("you must provide --destination if setting --image-name-tag-with-digest-file")
	case c.format == "docker" && c.compression == "zstd":
		return errors.New("--compression=zstd cannot be used with --image-format=docker, which knows no zstd: use --image-format=oci")
	case !slices.Contains([]string{"", "docker", "oci"}, c.format):
		return fmt.Errorf("invalid --image-format %q: it is docker or oci", c.format)
	case !slices.Contains([]string{"", "gzip", "zstd"}, c.compression):
		return fmt.Errorf("invalid --compression %q: it is gzip or zstd", c.compression)
	case !slices.Contains([]string{"text", "color", "json"}, c.logFormat):
		return fmt.Errorf("invalid --log-format %q: it is text, color or json", c.logFormat)
	case logLevels[c.verbosity] == "":
		return fmt.Errorf("invalid --verbosity %q: it is trace, debug, info, warn, error, fatal or panic", c.verbosity)
	case c.dryRun:
		return errors.New("--dryrun is not available: shale build --call=outline shows what a Dockerfile takes")
	}
	return nil
}

// logLevels are shale's levels by kaniko's.
var logLevels = map[string]string{
	"trace": "debug", "debug": "debug", "info": "warn", "warn": "warn", "warning": "warn", "error": "error", "fatal": "error", "panic": "error",
}

// LogLevel is the value of shale's --log-level.
func (c *Command) LogLevel() string { return logLevels[c.verbosity] }

// Progress is the value of shale's --progress.
func (c *Command) Progress() string {
	switch {
	case c.LogLevel() == "error" || strings.HasPrefix(c.verbosity, "warn"):
		return "quiet"
	case c.logFormat == "json":
		return "rawjson"
	}
	return "plain"
}

// Destinations are the names to push to.
func (c *Command) Destinations() []string { return c.destinations }

// ParsePush understands the arguments of executor push: those of the executor that
// are about registries, and the file or directory that has the image.
func ParsePush(args []string, env LookupEnv) (c *Command, path string, err error) {
	c = &Command{env: env}
	set, known := newFlagSet(&c.flags)
	args, unknown := dropUnknown(set, args)
	for _, name := range unknown {
		c.warn("%s has no effect: kaniko's executor has no such flag, as far as is known here", name)
	}
	if err := set.Parse(args); err != nil {
		return nil, "", err
	}
	for _, f := range known {
		if given := set.Lookup(f.name); given.Changed {
			c.warnAbout(f, given.Value.String())
		}
	}
	if err := c.addEnvironment(); err != nil {
		return nil, "", err
	}
	switch {
	case set.NArg() != 1:
		return nil, "", errors.New("push wants one file or directory that has an image")
	case len(c.destinations) == 0:
		return nil, "", errors.New("at least one --destination is required")
	}
	return c, set.Arg(0), nil
}
