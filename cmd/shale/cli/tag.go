package cli

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func tagCommand() *cli.Command {
	return &cli.Command{
		Name:      "tag",
		Usage:     "Give an image another name",
		ArgsUsage: "IMAGE NAME[:TAG] [NAME[:TAG]...]",
		Action: func(c *cli.Context) error {
			if err := wantArguments(c, 2, -1); err != nil {
				return err
			}
			return withStore(c, func(s *session) error {
				return tagImage(s.store, c.Args().First(), c.Args().Tail())
			})
		},
	}
}

func tagImage(store imageStore, source string, targets []string) error {
	var names []string
	for _, target := range targets {
		if strings.Contains(target, "@") {
			return fmt.Errorf("invalid image name %q: a digest cannot be given to an image", target)
		}
		name, err := storeName(target)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	img, _, err := find(store, source)
	if err != nil {
		return err
	}
	return store.AddNames(img.ID, names...)
}
