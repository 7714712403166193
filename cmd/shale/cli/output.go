package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder"
)

// outputs returns all outputs of a build.
func outputs(c *cli.Context) ([]builder.Export, error) {
	exports, err := parseOutputs(c.StringSlice("output"), c.Bool("push"), c.Bool("load"))
	if err != nil {
		return nil, err
	}
	for _, e := range exports {
		if (e.Type == "local" || e.Type == "tar") && c.String("iidfile") != "" {
			return nil, errors.New("local and tar exporters are incompatible with image ID file: --iidfile has no image to name")
		}
	}
	return addAnnotations(exports, c.StringSlice("annotation"))
}

// parseOutputs parses the values of --output. --push and --load are short forms of
// outputs.
func parseOutputs(values []string, push, load bool) ([]builder.Export, error) {
	var exports []builder.Export
	stdout := 0
	for _, v := range values {
		e, err := parseOutput(v)
		if err != nil {
			return nil, fmt.Errorf("invalid --output %q: %w", v, err)
		}
		if e.Dest == "-" {
			stdout++
		}
		exports = append(exports, e)
	}
	if stdout > 1 {
		return nil, errors.New("only one --output can go to standard output")
	}
	if push {
		exports = withPush(exports)
	}
	if load && len(exports) > 0 && !slices.ContainsFunc(exports, loads) {
		exports = append(exports, builder.Export{Type: "image", Attrs: map[string]string{}})
	}
	return exports, nil
}

// withPush makes every output of an image push. If there is none, it adds an output
// that pushes.
func withPush(exports []builder.Export) []builder.Export {
	found := false
	for _, e := range exports {
		if e.Type == "image" || e.Type == "registry" {
			e.Attrs["push"], found = "true", true
		}
	}
	if !found {
		exports = append(exports, builder.Export{Type: "image", Attrs: map[string]string{"push": "true"}})
	}
	return exports
}

// loads reports whether an output keeps the image in the store.
func loads(e builder.Export) bool {
	return e.Type == "image" && e.Attrs["store"] == "" || e.Type == "docker" && e.Dest == ""
}

// parseOutput parses one value: a line of CSV with key=value pairs. A value without a
// comma that does not begin with type= or dest= is a directory, or "-" for a tar
// archive on standard output.
func parseOutput(value string) (builder.Export, error) {
	fields, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return builder.Export{}, errors.New("want type=TYPE[,dest=PATH][,KEY=VALUE]")
	}
	if len(fields) == 1 && fields[0] == value && !strings.HasPrefix(value, "type=") && !strings.HasPrefix(value, "dest=") {
		if value == "-" {
			return builder.Export{Type: "tar", Dest: "-", Attrs: map[string]string{}}, nil
		}
		return builder.Export{Type: "local", Dest: value, Attrs: map[string]string{}}, nil
	}
	e := builder.Export{Attrs: map[string]string{}}
	for _, field := range fields {
		key, v, found := strings.Cut(field, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if !found || key == "" {
			return builder.Export{}, fmt.Errorf("%q is not of the form KEY=VALUE", field)
		}
		switch key {
		case "type":
			e.Type = v
		case "dest":
			e.Dest = v
		default:
			e.Attrs[key] = v
		}
	}
	return completeOutput(e)
}

// completeOutput checks the type of an output and sets its default destination.
func completeOutput(e builder.Export) (builder.Export, error) {
	switch e.Type {
	case "":
		return e, errors.New("type is required")
	case "image", "registry":
		if e.Dest != "" {
			return e, fmt.Errorf("type %s has no dest: it is called by --tag or name=", e.Type)
		}
	case "local":
		if e.Dest == "" {
			return e, errors.New("type local needs dest=DIRECTORY")
		}
		if e.Dest == "-" {
			return e, errors.New("type local writes a directory: use type=tar for standard output")
		}
	case "tar", "oci":
		if e.Dest == "" {
			e.Dest = "-"
		}
	case "docker", "cacheonly":
		// Type docker without dest writes to the store, and cacheonly has no
		// destination.
	default:
		return e, fmt.Errorf("unknown type %q: it is one of image, local, tar, oci, docker, registry", e.Type)
	}
	return e, nil
}
