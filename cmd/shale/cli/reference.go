package cli

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// Reference returns a description of all commands and flags in Markdown. docs/cli.md is
// its output.
func Reference() (string, error) {
	app := newApp(Streams{})
	app.Setup()
	var b strings.Builder
	b.WriteString("# Command line\n\n")
	b.WriteString("This page is made from the definitions of the flags: `go test ./cmd/shale/cli -run TestReference -update`.\n\n")
	fmt.Fprintf(&b, "%s\n\n", app.Description)
	b.WriteString("Flags may stand before and after other arguments; `--` ends them. Flags that can be\nrepeated are marked with `…`. Every command takes the global flags and `--help`.\n\n")
	b.WriteString("## Global flags\n\n")
	writeFlags(&b, app.Flags)
	for _, c := range app.Commands {
		writeCommand(&b, c, app.Name)
	}
	return strings.TrimRight(b.String(), "\n") + "\n", nil
}

func writeCommand(b *strings.Builder, c *cli.Command, parent string) {
	if c.Hidden || c.Name == "help" {
		return
	}
	path := parent + " " + c.Name
	fmt.Fprintf(b, "## %s\n\n%s.\n\n", path, c.Usage)
	if len(c.Subcommands) > 0 {
		for _, sub := range c.Subcommands {
			writeSubcommand(b, sub, path)
		}
		b.WriteByte('\n')
		for _, sub := range c.Subcommands {
			if isOnlyIn(sub, c.Name) {
				writeCommand(b, sub, path)
			}
		}
		return
	}
	usage := path
	if len(c.Flags) > 0 {
		usage += " [FLAGS]"
	}
	if c.ArgsUsage != "" {
		usage += " " + c.ArgsUsage
	}
	fmt.Fprintf(b, "    %s\n\n", usage)
	if c.Description != "" {
		fmt.Fprintf(b, "%s\n\n", c.Description)
	}
	writeFlags(b, c.Flags)
}

// topLevel maps subcommands to the commands with the same function.
var topLevel = map[string]string{
	"image build": "build", "image history": "history", "image inspect": "inspect", "image load": "load",
	"image ls": "images", "image pull": "pull", "image push": "push", "image rm": "rmi",
	"image save": "save", "image tag": "tag", "builder build": "build", "system info": "info",
}

func isOnlyIn(c *cli.Command, group string) bool {
	return c.Name != "help" && topLevel[group+" "+c.Name] == ""
}

func writeSubcommand(b *strings.Builder, c *cli.Command, group string) {
	if c.Name == "help" {
		return
	}
	_, name, _ := strings.Cut(group, " ")
	if same := topLevel[name+" "+c.Name]; same != "" {
		fmt.Fprintf(b, "- `%s %s`: the same as `shale %s`\n", group, c.Name, same)
		return
	}
	fmt.Fprintf(b, "- `%s %s`: %s\n", group, c.Name, c.Usage)
}

func writeFlags(b *strings.Builder, flags []cli.Flag) {
	rows := 0
	for _, f := range flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if v, hasVisibility := f.(cli.VisibleFlag); !ok || hasVisibility && !v.IsVisible() || f.Names()[0] == "help" {
			continue
		}
		if rows == 0 {
			b.WriteString("| Flag | Meaning |\n|---|---|\n")
		}
		rows++
		fmt.Fprintf(b, "| %s | %s |\n", flagSpelling(f, doc), flagMeaning(f, doc))
	}
	if rows > 0 {
		b.WriteByte('\n')
	}
}

func flagSpelling(f cli.Flag, doc cli.DocGenerationFlag) string {
	var spelled []string
	for _, name := range f.Names() {
		if len(name) == 1 {
			spelled = append([]string{"`-" + name + "`"}, spelled...)
		} else {
			spelled = append(spelled, "`--"+name+"`")
		}
	}
	out := strings.Join(spelled, ", ")
	if !doc.TakesValue() {
		return out
	}
	out += " " + escapeCell(placeholder(doc.GetUsage()))
	if _, repeated := f.(*cli.StringSliceFlag); repeated {
		out += " …"
	}
	return out
}

// placeholder returns the word between backquotes in the usage of a flag, as urfave/cli
// does. It returns "VALUE" if there is none.
func placeholder(usage string) string {
	_, rest, found := strings.Cut(usage, "`")
	word, _, closed := strings.Cut(rest, "`")
	if !found || !closed {
		return "VALUE"
	}
	return word
}

func flagMeaning(f cli.Flag, doc cli.DocGenerationFlag) string {
	text := strings.ReplaceAll(doc.GetUsage(), "`", "")
	if value := defaultValue(f); value != "" {
		text += " (default: " + value + ")"
	}
	if env := doc.GetEnvVars(); len(env) > 0 {
		text += " [$" + strings.Join(env, ", $") + "]"
	}
	return escapeCell(text)
}

// defaultValue returns the default in the definition of a flag. Environment variables
// have no effect on it.
func defaultValue(f cli.Flag) string {
	switch f := f.(type) {
	case *cli.StringFlag:
		return f.Value
	case *cli.BoolFlag:
		if f.Value {
			return "true"
		}
	}
	return ""
}

func escapeCell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
