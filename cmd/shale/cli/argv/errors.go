package argv

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// UsageError is returned for a command line that shale cannot carry out. Command is the
// command for which the user should read the help, for example "shale build".
type UsageError struct {
	Command string
	Message string
}

// Error returns the message in one line, without the hint.
func (e *UsageError) Error() string { return e.Message }

// Hint returns a line that names the help of the command.
func (e *UsageError) Hint() string {
	return fmt.Sprintf("See '%s --help'.", e.Command)
}

func (p *parser) usage(message string) error {
	return &UsageError{Command: p.commandPath(), Message: message}
}

func (p *parser) unknownFlag(spelled string) error {
	name := spelled[2:]
	candidates := p.global.names()
	if len(p.path) > 0 {
		candidates = append(p.path[len(p.path)-1].flags.names(), candidates...)
	}
	message := "unknown flag: " + spelled
	if near := nearest(name, candidates); near != "" {
		message += fmt.Sprintf(" (did you mean --%s?)", near)
	}
	return p.usage(message)
}

func (p *parser) unknownShort(letter rune, cluster string) error {
	// A user who types -tag or -file usually means a long flag, not a cluster of
	// letters.
	if _, out := p.find(cluster); out != nil && len(cluster) > 1 {
		return p.usage(fmt.Sprintf("unknown flag: -%s (did you mean --%s?)", cluster, cluster))
	}
	return p.usage(fmt.Sprintf("unknown shorthand flag: '%c' in -%s", letter, cluster))
}

func (p *parser) unknownCommand(name string, commands []*cli.Command) error {
	var candidates []string
	for _, c := range commands {
		if !c.Hidden {
			candidates = append(candidates, c.Names()...)
		}
	}
	message := fmt.Sprintf("unknown command: %s %s", p.commandPath(), name)
	if near := nearest(name, candidates); near != "" {
		message += fmt.Sprintf(" (did you mean %s?)", near)
	}
	return p.usage(message)
}
