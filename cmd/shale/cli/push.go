package cli

import (
	"errors"
	"fmt"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/storage/registry"
)

func pushCommand() *cli.Command {
	return &cli.Command{
		Name:      "push",
		Usage:     "Upload an image to a registry",
		ArgsUsage: "IMAGE [NAME[:TAG]]",
		Description: `Without NAME the image goes where its own name says: docker.io, when that names
no registry.`,
		Flags: append(registryFlags(),
			&cli.BoolFlag{Name: "all-tags", Aliases: []string{"a"}, Usage: "push every tag of the repository"},
			&cli.StringFlag{Name: "compression", Value: registry.Gzip, Usage: "compress layers with gzip, zstd, or not at all (uncompressed)"},
			&cli.IntFlag{Name: "compression-level", Usage: "on the scale of the compression"},
			&cli.StringFlag{Name: "digestfile", Usage: "write the digest of the manifest to `FILE`"},
			&cli.StringFlag{Name: "format", Usage: "media types: oci or docker (default: those of the image)"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"},
		),
		Action: pushAction,
	}
}

func pushAction(c *cli.Context) error {
	if err := wantArguments(c, 1, 2); err != nil {
		return err
	}
	opts, err := pushOptions(c)
	if err != nil {
		return usageError(c, err.Error())
	}
	return withStore(c, func(s *session) error {
		jobs, err := pushJobs(s.store, c.Args().First(), c.Args().Get(1), c.Bool("all-tags"))
		if err != nil {
			return err
		}
		client := registry.New(s.store, registryOptions(c, s))
		for _, job := range jobs {
			if err := s.store.UseImage(job.imageID); err != nil {
				return err
			}
		}
		for _, job := range jobs {
			if err := push(c, client, job, opts); err != nil {
				return err
			}
		}
		return nil
	})
}

func pushOptions(c *cli.Context) (registry.PushOptions, error) {
	opts := registry.PushOptions{Compression: c.String("compression")}
	if _, err := parseChoice("compression", opts.Compression, registry.Gzip, registry.Zstd, registry.Uncompressed); err != nil {
		return opts, err
	}
	if c.IsSet("compression-level") {
		level := c.Int("compression-level")
		opts.Level = &level
	}
	if f := c.String("format"); f != "" {
		if _, err := parseChoice("format", f, registry.FormatOCI, registry.FormatDocker); err != nil {
			return opts, err
		}
	}
	if c.Bool("all-tags") && (c.NArg() > 1 || c.String("digestfile") != "") {
		return opts, errors.New("--all-tags goes with neither a second name nor --digestfile")
	}
	return opts, nil
}

// pushJob is an image in the store and the complete name to which it must be pushed.
type pushJob struct{ imageID, dest string }

func pushJobs(store imageReader, name, dest string, allTags bool) ([]pushJob, error) {
	if allTags {
		return allTagJobs(store, name)
	}
	img, _, err := find(store, name)
	if err != nil {
		return nil, err
	}
	if dest == "" {
		dest = name
	}
	full, err := registryName(dest)
	if err != nil {
		return nil, err
	}
	return []pushJob{{img.ID, full}}, nil
}

// registryName completes a destination by docker's rules. It returns an error if name
// contains a digest.
func registryName(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("cannot push to %q: %w", name, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return "", fmt.Errorf("cannot push to %q: give a name to push to", name)
	}
	return reference.TagNameOnly(named).String(), nil
}

func allTagJobs(store imageReader, name string) ([]pushJob, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil || !reference.IsNameOnly(named) {
		return nil, fmt.Errorf("--all-tags wants a repository, not %q", name)
	}
	wanted := map[string]bool{named.Name(): true}
	if !builder.HasRegistry(name) {
		wanted[localName(named.Name())] = true
	}
	images, err := store.Images()
	if err != nil {
		return nil, err
	}
	var jobs []pushJob
	for _, img := range images {
		for _, n := range img.Names {
			if repository, tag, dgst := splitName(n); wanted[repository] && dgst == "" {
				jobs = append(jobs, pushJob{img.ID, named.Name() + ":" + tag})
			}
		}
	}
	if len(jobs) == 0 {
		return nil, &noImageError{name}
	}
	return jobs, nil
}

func push(c *cli.Context, client *registry.Client, job pushJob, opts registry.PushOptions) (err error) {
	src, err := client.SourceOf(job.imageID)
	if err != nil {
		return err
	}
	// A push cannot be undone, so errors of --digestfile must be found before it.
	undo, err := prepareResult(c.String("digestfile"))
	if err != nil {
		return fmt.Errorf("write --digestfile: %w", err)
	}
	defer func() {
		if err != nil {
			undo()
		}
	}()
	if f := c.String("format"); f != "" {
		src.Docker = f == registry.FormatDocker
	}
	var desc ocispec.Descriptor
	err = withTransfer(c, "pushing "+job.dest, func(p registry.Progress) error {
		opts.Progress = p
		desc, err = client.Push(c.Context, src, job.dest, opts)
		return err
	})
	if err != nil {
		return err
	}
	if path := c.String("digestfile"); path != "" {
		if err := writeResult(path, []byte(desc.Digest)); err != nil {
			return fmt.Errorf("write --digestfile: %w", err)
		}
	}
	if c.Bool("quiet") {
		_, err = fmt.Fprintln(c.App.Writer, job.dest)
		return err
	}
	_, tag, _ := splitName(job.dest)
	_, err = fmt.Fprintf(c.App.Writer, "%s: digest: %s size: %d\n", tag, desc.Digest, desc.Size)
	return err
}
