package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// manSection is the section of user commands, see man-pages(7).
const manSection = 1

func manCommand() *cli.Command {
	return &cli.Command{
		Name:   "man",
		Usage:  "Print the man page",
		Hidden: true,
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "markdown", Usage: "print the same as Markdown"}},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			page, err := c.App.ToManWithSection(manSection)
			if c.Bool("markdown") {
				page, err = Reference()
			}
			if err != nil {
				return fmt.Errorf("make man page: %w", err)
			}
			_, err = fmt.Fprint(c.App.Writer, page)
			return err
		},
	}
}
