package builder

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"

	"github.com/shale-build/shale/builder/export"
)

// output is a parsed value of -o.
type output struct {
	Export
	image export.ImageOptions
	files export.FilesOptions
	// names are the names of the image as the user spelled them.
	names []string
	// store keeps the image in the store, push and byDigest push it to registries.
	// insecure accepts any certificate and plain HTTP.
	store, push, byDigest, insecure bool
	// canonical adds names that contain the digest. dangling is the prefix of a further
	// name with the digest. danglingOnly gives that name only to an image without other
	// names.
	canonical, danglingOnly bool
	dangling                string
	// layout writes a directory instead of an archive.
	layout bool
	// unknown are the attributes that are not known. They have no effect.
	unknown []string
}

// readOutputs parses all values of -o. If there are none, the image is kept in the store.
func readOutputs(opts Options) ([]output, error) {
	exports := opts.Exports
	if len(exports) == 0 {
		exports = []Export{{Type: "image"}}
	}
	var list []output
	for _, e := range exports {
		if e.Type == "cacheonly" {
			continue
		}
		o, err := readOutput(e, opts)
		if err == nil {
			err = o.checkDest()
		}
		if err != nil {
			return nil, err
		}
		list = append(list, o)
	}
	return list, nil
}

func readOutput(e Export, opts Options) (output, error) {
	o := output{Export: e}
	var rest map[string]string
	var err error
	switch e.Type {
	case "local", "tar":
		o.files, rest, err = export.ParseFiles(e.Attrs)
	case "image", "docker", "oci", "registry":
		if o.image, rest, err = export.ParseImage(e.Attrs, opts.Format == "docker"); err == nil {
			rest, err = o.readImage(rest, opts.Tags)
		}
	default:
		return o, fmt.Errorf("output type %q is not known: use image, local, tar, oci, docker or registry", e.Type)
	}
	o.unknown = slices.Sorted(maps.Keys(rest))
	return o, err
}

// readImage parses the attributes of outputs that are images and returns the remaining
// ones. Names given with --tag override the attribute name, as in docker.
func (o *output) readImage(attrs map[string]string, tags []string) (map[string]string, error) {
	rest := maps.Clone(attrs)
	if o.names = tags; len(tags) == 0 && attrs["name"] != "" {
		o.names = strings.Split(attrs["name"], ",")
	}
	delete(rest, "name")
	flags := map[string]*bool{}
	switch {
	case o.Type == "image" || o.Type == "registry":
		o.store, o.push = o.Type == "image", o.Type == "registry"
		flags = map[string]*bool{
			"store": &o.store, "push": &o.push, "push-by-digest": &o.byDigest, "registry.insecure": &o.insecure,
			"name-canonical": &o.canonical, "danging-name-empty-only": &o.danglingOnly, "dangling-name-empty-only": &o.danglingOnly,
		}
		o.dangling = rest["dangling-name-prefix"]
		delete(rest, "dangling-name-prefix")
	case o.Type == "docker" && o.Dest == "":
		o.store = true
	default:
		tar := true
		flags["tar"] = &tar
		defer func() { o.layout = !tar }()
	}
	for name, dest := range flags {
		if err := readFlag(rest, name, dest); err != nil {
			return nil, err
		}
	}
	return rest, o.checkNames()
}

// readFlag parses and removes a boolean attribute. An attribute without a value is true.
func readFlag(attrs map[string]string, name string, dest *bool) error {
	text, ok := attrs[name]
	if !ok {
		return nil
	}
	delete(attrs, name)
	*dest = true
	if text == "" {
		return nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return fmt.Errorf("non-bool value specified for %s: %w", name, err)
	}
	*dest = v
	return nil
}

func (o *output) checkNames() error {
	if o.push && len(o.names) == 0 {
		return errors.New("tag is needed when pushing to registry: give one with -t or name=")
	}
	for _, name := range o.names {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return fmt.Errorf("invalid tag %q: %w", name, err)
		}
		if o.push && o.byDigest && !reference.IsNameOnly(named) {
			return fmt.Errorf("can't push tagged ref %s by digest: give the name without a tag", name)
		}
		if _, err := parseTag(name); err != nil {
			return err
		}
	}
	return nil
}

// archive reports whether the output is a file or a directory that contains an image.
func (o output) archive() bool { return o.Type == "oci" || o.Type == "docker" && !o.store }

// title returns the name of the output for the progress display.
func (o output) title() string {
	switch {
	case o.Type == "local":
		return "exporting to client directory"
	case o.Type == "tar":
		return "exporting to client tarball"
	case o.archive():
		return "exporting to " + o.Type + " image format"
	}
	return "exporting to image"
}

// registryNames returns the complete names of the image by docker's rules.
func (o output) registryNames() ([]string, error) {
	names := make([]string, len(o.names))
	for i, name := range o.names {
		var err error
		if names[i], err = registryName(name); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// checkDest returns an error if the destination cannot be written. It runs before
// anything is built.
func (o output) checkDest() error {
	dir := o.Type == "local" || o.archive() && o.layout
	switch {
	case o.Type != "local" && o.Type != "tar" && !o.archive():
		return nil
	case dir && (o.Dest == "" || o.Dest == "-"):
		return fmt.Errorf("dest is required for %s exporter: it writes a directory", o.Type)
	case !dir && (o.Dest == "" || o.Dest == "-"):
		return nil
	}
	info, err := os.Stat(o.Dest)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("invalid destination: %w", err)
	case dir && !info.IsDir():
		return fmt.Errorf("destination directory %s is a file", o.Dest)
	case !dir && info.IsDir():
		return fmt.Errorf("destination file %s is a directory", o.Dest)
	}
	return nil
}
