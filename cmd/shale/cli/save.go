package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/shale-build/shale/cmd/shale/cli/display"
	"github.com/shale-build/shale/internal/umask"
	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/registry"
)

func saveCommand() *cli.Command {
	return &cli.Command{
		Name:      "save",
		Usage:     "Write images to an archive",
		ArgsUsage: "IMAGE [IMAGE...]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "docker-archive", Usage: "kind of archive: docker-archive or oci-archive"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE` instead of standard output"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"},
		},
		Action: func(c *cli.Context) error {
			if err := wantArguments(c, 1, -1); err != nil {
				return err
			}
			format, err := parseChoice("format", c.String("format"), "docker-archive", "oci-archive", "docker", "oci")
			if err != nil {
				return usageError(c, err.Error())
			}
			opts := registry.SaveOptions{Format: registry.FormatDocker}
			if format == "oci" || format == "oci-archive" {
				opts.Format = registry.FormatOCI
			}
			output := c.String("output")
			if f, ok := display.Raw(c.App.Writer).(*os.File); ok && output == "" && term.IsTerminal(int(f.Fd())) {
				return usageError(c, "refusing to write an archive to the terminal: use --output or redirect standard output")
			}
			return withStore(c, func(s *session) error { return save(c, s, output, opts) })
		},
	}
}

func save(c *cli.Context, s *session, output string, opts registry.SaveOptions) error {
	names, ids, err := savedNames(s.store, c.Args().Slice())
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.store.UseImage(id); err != nil {
			return err
		}
	}
	client := registry.New(s.store, registryOptions(c, s))
	write := func(w io.Writer) error {
		return withTransfer(c, "saving", func(p registry.Progress) error {
			opts.Progress = p
			return client.Save(c.Context, w, names, opts)
		})
	}
	if output == "" {
		return write(display.Raw(c.App.Writer))
	}
	return replaceFile(output, write)
}

// savedNames returns the names by which the images were found, and the IDs of the
// images. The archive must contain the names that the user gave, and no other names of
// the images.
func savedNames(store imageReader, given []string) (names, ids []string, err error) {
	for _, g := range given {
		img, name, err := find(store, g)
		if err != nil {
			return nil, nil, err
		}
		if name == "" {
			name = img.ID
		}
		names, ids = append(names, name), append(ids, img.ID)
	}
	return names, ids, nil
}

// replaceFile writes a file atomically: other processes see the complete file or the
// old one. A file that is not regular, for example a pipe, is written directly.
func replaceFile(path string, write func(io.Writer) error) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
		return errors.Join(write(f), f.Close())
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	err = write(tmp)
	err = errors.Join(err, tmp.Chmod(umask.Of(0o666)), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

func loadCommand() *cli.Command {
	return &cli.Command{
		Name:  "load",
		Usage: "Read images from an OCI or docker archive",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "input", Aliases: []string{"i"}, Usage: "read `FILE` instead of standard input"},
			&cli.StringFlag{Name: "platform", Usage: "load the image for `OS/ARCH[/VARIANT]`"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			platform, err := onePlatform(c)
			if err != nil {
				return usageError(c, err.Error())
			}
			if f, ok := c.App.Reader.(*os.File); ok && c.String("input") == "" && term.IsTerminal(int(f.Fd())) {
				return usageError(c, "refusing to read an archive from the terminal: use --input or redirect standard input")
			}
			return withStore(c, func(s *session) error {
				return load(c, s, registry.PullOptions{Platform: platform, OnlyPlatform: c.IsSet("platform")})
			})
		},
	}
}

func load(c *cli.Context, s *session, opts registry.PullOptions) (err error) {
	in := c.App.Reader
	if path := c.String("input"); path != "" && path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		defer f.Close()
		in = f
	}
	client := registry.New(s.store, registryOptions(c, s))
	var images []storage.Image
	err = withTransfer(c, "loading", func(p registry.Progress) error {
		opts.Progress = p
		images, err = client.Load(c.Context, in, opts)
		return err
	})
	if err != nil {
		return err
	}
	return printLoaded(c.App.Writer, images)
}

func printLoaded(w io.Writer, images []storage.Image) error {
	for _, img := range images {
		tags, _ := tagsAndDigests(img)
		if len(tags) == 0 {
			if err := printEach(w, "Loaded image ID: ", []string{imageID(img.ID)}); err != nil {
				return err
			}
		}
		if err := printEach(w, "Loaded image: ", tags); err != nil {
			return err
		}
	}
	return nil
}
