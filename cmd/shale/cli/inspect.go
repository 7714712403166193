package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/cmd/shale/cli/format"
	"github.com/shale-build/shale/storage"
)

func inspectCommand() *cli.Command {
	c := imageInspectCommand()
	c.Name = "inspect"
	c.Flags = append(c.Flags, &cli.StringFlag{Name: "type", Value: "image", Usage: "accepted for docker's sake: only `image`s can be inspected"})
	return c
}

func imageInspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "Show all about images as JSON",
		ArgsUsage: "IMAGE [IMAGE...]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Usage: "print with `FORMAT`: json or a Go template"},
		},
		Action: func(c *cli.Context) error {
			if err := wantArguments(c, 1, -1); err != nil {
				return err
			}
			if t := c.String("type"); t != "" && t != "image" {
				return usageError(c, fmt.Sprintf("--type %s: shale keeps images only", t))
			}
			return withStore(c, func(s *session) error {
				return inspectImages(c.App.Writer, s.store, c.Args().Slice(), c.String("format"))
			})
		},
	}
}

// imageDetails describes an image in the form of docker inspect.
type imageDetails struct {
	ID           string `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Parent       string
	Comment      string
	Created      string
	Author       string
	Config       *dockerspec.DockerOCIImageConfig
	Architecture string
	Variant      string `json:",omitempty"`
	Os           string
	OsVersion    string `json:",omitempty"`
	Size         int64
	RootFS       rootFS
	// Digest and the following fields do not exist in docker's output.
	Digest       string
	ManifestType string
	Annotations  map[string]string `json:",omitempty"`
}

type rootFS struct {
	Type   string
	Layers []digest.Digest
}

// Id returns the ID. Templates use this name, which is also that of the JSON.
func (d imageDetails) Id() string { return d.ID } //nolint:revive // docker's spelling

// inspectImages prints the images that exist. Then it returns an error for each image
// that does not exist.
func inspectImages(w io.Writer, store imageReader, names []string, template string) error {
	found := []imageDetails{}
	var missing []error
	for _, name := range names {
		img, _, err := find(store, name)
		if err == nil {
			var d imageDetails
			if d, err = details(store, img); err == nil {
				found = append(found, d)
				continue
			}
		}
		missing = append(missing, err)
	}
	return errors.Join(append([]error{writeDetails(w, found, template)}, missing...)...)
}

func writeDetails(w io.Writer, found []imageDetails, template string) error {
	switch template {
	case "":
		return format.IndentedJSON(w, found)
	case "json":
		line, err := format.JSON(found)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w, line)
		return err
	}
	t, err := format.Parse(template)
	if err != nil {
		return err
	}
	for _, d := range found {
		if err := format.Execute(w, t, d); err != nil {
			return err
		}
	}
	return nil
}

func details(store imageReader, img storage.Image) (imageDetails, error) {
	config, err := readConfig(store, img)
	if err != nil {
		return imageDetails{}, err
	}
	layers, err := store.Chain(img.TopLayer)
	if err != nil {
		return imageDetails{}, err
	}
	d := imageDetails{
		ID: imageID(img.ID), Author: config.Author, Config: &config.Config,
		Architecture: config.Architecture, Variant: config.Variant, Os: config.OS, OsVersion: config.OSVersion,
		Size: layersSize(layers), Digest: img.Digest.String(),
		RootFS: rootFS{Type: config.RootFS.Type, Layers: config.RootFS.DiffIDs},
	}
	d.RepoTags, d.RepoDigests = tagsAndDigests(img)
	if d.RootFS.Layers == nil {
		d.RootFS.Layers = []digest.Digest{}
	}
	if config.Created != nil {
		d.Created = config.Created.Format(time.RFC3339Nano)
	}
	if n := len(config.History); n > 0 {
		d.Comment = config.History[n-1].Comment
	}
	return d, d.addManifest(store, img)
}

func (d *imageDetails) addManifest(store imageReader, img storage.Image) error {
	data, err := store.ImageManifest(img.ID)
	if err != nil {
		return err
	}
	var manifest struct {
		MediaType   string            `json:"mediaType"`
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		return fmt.Errorf("read manifest of image %s: %w", shortID(img.ID), err)
	}
	d.ManifestType = strings.TrimSpace(manifest.MediaType)
	d.Annotations = manifest.Annotations
	return nil
}
