package argv

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// CompletionFlag asks, as the last argument, for shell completions. A command
// line that carries it is incomplete by nature and is left as it is.
const CompletionFlag = "--generate-bash-completion"

// Normalize returns args, the first of which is the program's name, with every
// flag in front of the positional arguments of its command. Flags of the
// program itself are accepted behind the command too. For the commands named
// in passThrough everything behind the first positional argument belongs to
// that argument and is left alone, as does all behind a command that skips flag
// parsing. An app whose Setup has not been called
// yet knows neither its help flag nor its help command.
//
// Errors are of type *UsageError.
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

// parser is the state of one reading from left to right.
type parser struct {
	program  string
	global   flagTable
	commands []*cli.Command
	pass     []string

	// path are the commands met so far, outermost first.
	path       []*level
	globalArgs []string
	positional []string
}

// level is one command of the path and the flags given to it.
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

// long reads "name" or "name=value" and returns the arguments behind it.
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

// short reads a cluster of one-letter flags, the last of which may carry a
// value: "it", "tapp", "t=app".
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

// find looks a flag up in the innermost command, then among the program's
// own. The list is where its argument belongs, nil when there is no such flag.
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

// wantsCommand says whether the next positional argument names a command.
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

// assemble writes the normal form: program flags, then each command with its
// flags, then the positional arguments behind "--".
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

// commandPath is how the user calls the innermost command.
func (p *parser) commandPath() string {
	names := []string{p.program}
	for _, l := range p.path {
		names = append(names, l.command.Name)
	}
	return strings.Join(names, " ")
}
