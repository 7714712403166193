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

// LookupEnv looks up an environment variable, as os.LookupEnv does.
type LookupEnv func(name string) (string, bool)

// Command is a parsed command line.
type Command struct {
	// Warnings are messages about flags that have no effect, one line each.
	Warnings []string

	flags
	env LookupEnv
}

// ErrHelp is returned by Parse and ParsePush if the command line requests help.
var ErrHelp = pflag.ErrHelp

// Parse parses the arguments of kaniko's executor. It returns ErrHelp if they request
// help. Any other error is a mistake of the user.
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

// Help writes the usage and the flags to w.
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

// dropUnknown returns args without the flags that set does not contain, and the names
// of these flags. An argument after an unknown flag is taken for its value, because the
// executor has no other arguments. The path of "executor push" must therefore not
// follow an unknown flag.
func dropUnknown(set *pflag.FlagSet, args []string) (kept, unknown []string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(kept, args[i:]...), unknown
		}
		f, name, glued := lookup(set, arg)
		switch {
		case name == "": // not a flag
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

// lookup returns the flag in arg and its name. The name is "" if arg is not a flag, or
// is the flag for help. f is nil if set does not contain the flag. glued reports
// whether arg also contains the value.
func lookup(set *pflag.FlagSet, arg string) (f *pflag.Flag, name string, glued bool) {
	switch {
	case arg == "--help", arg == "-h", arg == "-", !strings.HasPrefix(arg, "-"):
		return nil, "", false
	case strings.HasPrefix(arg, "--"):
		name, _, glued = strings.Cut(arg[2:], "=")
		return set.Lookup(name), "--" + name, glued
	}
	// None of the short flags is a boolean, so the rest of arg is the value.
	return set.ShorthandLookup(arg[1:2]), arg[:2], len(arg) > 2
}

// addEnvironment reads the environment variables that correspond to flags, as kaniko
// does. KANIKO_NO_PUSH overrides its flag. The variables for mirrors and maps add to
// theirs. KANIKO_DIR is used if the flag is not given.
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

// defaultDir is the directory in kaniko's image that contains the executor's own files.
const defaultDir = "/kaniko"

// check returns an error for flags that contradict each other, as kaniko does, and for
// values that are not valid.
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
		return errors.New("--dryrun is not available: shale build --call=outline shows the arguments of a Dockerfile")
	}
	return nil
}

// logLevels maps the log levels of kaniko to those of shale.
var logLevels = map[string]string{
	"trace": "debug", "debug": "debug", "info": "warn", "warn": "warn", "warning": "warn", "error": "error", "fatal": "error", "panic": "error",
}

// LogLevel returns the value for the flag --log-level of shale.
func (c *Command) LogLevel() string { return logLevels[c.verbosity] }

// Progress returns the value for the flag --progress of shale.
func (c *Command) Progress() string {
	switch {
	case c.LogLevel() == "error" || strings.HasPrefix(c.verbosity, "warn"):
		return "quiet"
	case c.logFormat == "json":
		return "rawjson"
	}
	return "plain"
}

// Destinations returns the names to push to.
func (c *Command) Destinations() []string { return c.destinations }

// ParsePush parses the arguments of "executor push". These are the flags of the
// executor that are about registries, and path, the file or directory that contains the
// image. It returns ErrHelp if the arguments request help. Any other error is a mistake
// of the user.
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
	case set.NArg() == 0 && len(unknown) > 0:
		return nil, "", fmt.Errorf("push wants one file or directory that has an image, before flags that are not known, such as %s", unknown[0])
	case set.NArg() != 1:
		return nil, "", errors.New("push wants one file or directory that has an image")
	case len(c.destinations) == 0:
		return nil, "", errors.New("at least one --destination is required")
	}
	return c, set.Arg(0), nil
}
