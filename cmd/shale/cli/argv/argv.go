package argv

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// CompletionFlag is the last argument of a command line that asks for shell
// completions. Such a command line is not complete yet, so Normalize returns it
// unchanged.
const CompletionFlag = "--generate-bash-completion"

// Normalize returns args with every flag before the positional arguments of its
// command. args[0] must be the name of the program. Flags of the program itself may
// also follow the command. The caller must have called app.Setup, which adds the help
// flag and the help command.
//
// Normalize leaves some arguments unchanged. For the commands named in passThrough,
// these are all arguments after the first positional argument, which belong to it. For
// a command with SkipFlagParsing, these are all arguments after the command.
//
// All errors are of type *UsageError.
func Normalize(app *cli.App, args []string, passThrough ...string) ([]string, error) {
	if len(args) < 2 || args[len(args)-1] == CompletionFlag {
		return args, nil
	}
	p := &parser{
		program:  app.Name,
		global:   newFlagTable(app.Flags),
		commands: app.Commands,
		pass:     passThrough,
	}
	if err := p.parse(args[1:]); err != nil {
		return nil, err
	}
	return append(args[:1:1], p.assemble()...), nil
}

// parser holds the state of one pass over the arguments from left to right.
type parser struct {
	program  string
	global   flagTable
	commands []*cli.Command
	pass     []string

	// path lists the commands found so far, outermost first.
	path       []*level
	globalArgs []string
	positional []string
}

// level is one command of the path with the flags given to it.
type level struct {
	command *cli.Command
	flags   flagTable
	args    []string
}

func (p *parser) parse(args []string) error {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			p.positional = append(p.positional, args...)
			return nil
		case strings.HasPrefix(arg, "--"):
			rest, err := p.long(arg[2:], args)
			if err != nil {
				return err
			}
			args = rest
		case strings.HasPrefix(arg, "-") && arg != "-":
			rest, err := p.short(arg[1:], args)
			if err != nil {
				return err
			}
			args = rest
		case p.wantsCommand():
			if err := p.enter(arg); err != nil {
				return err
			}
			if cur := p.path[len(p.path)-1]; cur.command.SkipFlagParsing {
				cur.args = args
				return nil
			}
		default:
			p.positional = append(p.positional, arg)
			if p.passesThrough() {
				p.positional = append(p.positional, args...)
				return nil
			}
		}
	}
	return nil
}

// long parses "name" or "name=value", the text of a long flag. args are the arguments
// after the flag; the first one is the value if the flag needs one and text has none.
// long returns the remaining arguments.
func (p *parser) long(text string, args []string) ([]string, error) {
	name, value, hasValue := strings.Cut(text, "=")
	f, out := p.find(name)
	if out == nil || len(name) < 2 {
		return nil, p.unknownFlag("--" + name)
	}
	if !hasValue && !f.boolean {
		if len(args) == 0 {
			return nil, p.usage("flag needs an argument: --" + name)
		}
		value, hasValue, args = args[0], true, args[1:]
	}
	*out = append(*out, f.argument(value, hasValue))
	return args, nil
}

// short parses a cluster of one-letter flags and returns the remaining arguments. The
// last flag of the cluster may have a value, as in "it", "tapp" or "t=app".
func (p *parser) short(cluster string, args []string) ([]string, error) {
	for i, letter := range cluster {
		f, out := p.find(string(letter))
		if out == nil {
			return nil, p.unknownShort(letter, cluster)
		}
		rest := cluster[i+len(string(letter)):]
		value, glued := strings.CutPrefix(rest, "=")
		switch {
		case f.boolean && glued:
			*out = append(*out, f.argument(value, true))
			return args, nil
		case f.boolean:
			*out = append(*out, f.argument("", false))
			continue
		case rest != "":
			*out = append(*out, f.argument(value, true))
			return args, nil
		case len(args) == 0:
			return nil, p.usage("flag needs an argument: -" + string(letter))
		}
		*out = append(*out, f.argument(args[0], true))
		return args[1:], nil
	}
	return args, nil
}

// find looks up a flag in the innermost command, then among the program's own flags. It
// also returns the list to which the argument of the flag must be added. The list is
// nil if there is no such flag.
func (p *parser) find(name string) (flagSpec, *[]string) {
	if len(p.path) > 0 {
		cur := p.path[len(p.path)-1]
		if f, ok := cur.flags[name]; ok {
			return f, &cur.args
		}
	}
	if f, ok := p.global[name]; ok {
		return f, &p.globalArgs
	}
	return flagSpec{}, nil
}

// wantsCommand reports whether the next positional argument is the name of a command.
func (p *parser) wantsCommand() bool {
	if len(p.positional) > 0 {
		return false
	}
	return len(p.path) == 0 || len(p.path[len(p.path)-1].command.Subcommands) > 0
}

func (p *parser) passesThrough() bool {
	if len(p.path) == 0 {
		return false
	}
	return slices.Contains(p.pass, p.path[len(p.path)-1].command.Name)
}

func (p *parser) enter(name string) error {
	commands := p.commands
	if len(p.path) > 0 {
		commands = p.path[len(p.path)-1].command.Subcommands
	}
	for _, c := range commands {
		if c.HasName(name) {
			p.path = append(p.path, &level{command: c, flags: newFlagTable(append([]cli.Flag{cli.HelpFlag}, c.Flags...))})
			return nil
		}
	}
	return p.unknownCommand(name, commands)
}

// assemble returns the arguments in normal form: the program's flags, then each command
// with its flags, then "--" and the positional arguments.
func (p *parser) assemble() []string {
	out := append([]string(nil), p.globalArgs...)
	for _, l := range p.path {
		out = append(out, l.command.Name)
		out = append(out, l.args...)
	}
	if len(p.positional) > 0 {
		out = append(append(out, "--"), p.positional...)
	}
	return out
}

// commandPath returns the innermost command as the user calls it, for example "shale
// image ls".
func (p *parser) commandPath() string {
	names := []string{p.program}
	for _, l := range p.path {
		names = append(names, l.command.Name)
	}
	return strings.Join(names, " ")
}
