package export

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shale-build/shale/storage/blobs"
)

// ImageOptions is the form of an image. The zero value is an OCI image with gzip layers.
type ImageOptions struct {
	// Docker selects the media types of docker's schema 2.
	Docker           bool
	Compression      Compression
	Annotations      Annotations
	RewriteTimestamp bool
	// Epoch is the SOURCE_DATE_EPOCH of the output, or nil for that of the build.
	Epoch *Epoch
	// Complete asks for an image with all its parts. Layers of the base image that cannot
	// be fetched as they were published are compressed again.
	Complete bool
}

// accepted are attributes that have no effect here. There are no attestations, layers of
// foreign media types are never made, and images in the store are always unpacked.
var accepted = map[string]bool{
	"oci-artifact": true, "prefer-nondist-layers": true, "attestation-inline": true, "unpack": true,
}

// ParseImage reads the attributes that all image outputs have in common, and returns the
// other attributes. If oci-mediatypes is missing, docker selects the media types of
// docker. It returns an error if an attribute is invalid or conflicts with another one.
func ParseImage(attrs map[string]string, docker bool) (ImageOptions, map[string]string, error) {
	opts := ImageOptions{Docker: docker}
	var err error
	var rest map[string]string
	if opts.Annotations, rest, err = parseAnnotations(attrs); err != nil {
		return opts, nil, err
	}
	if opts.Epoch, err = parseEpoch(rest); err != nil {
		return opts, nil, err
	}
	if opts.Compression, err = parseCompression(rest); err != nil {
		return opts, nil, err
	}
	oci, artifact := !docker, false
	for name, dest := range map[string]*bool{
		"oci-mediatypes": &oci, "rewrite-timestamp": &opts.RewriteTimestamp, "oci-artifact": &artifact,
		"prefer-nondist-layers": new(bool), "attestation-inline": new(bool), "unpack": new(bool),
	} {
		if err := parseBool(rest, name, dest); err != nil {
			return opts, nil, err
		}
	}
	opts.Docker = !oci
	maps.DeleteFunc(rest, func(name, _ string) bool {
		switch name {
		case "source-date-epoch", "compression", "compression-level", "force-compression", "oci-mediatypes", "rewrite-timestamp":
			return true
		}
		return accepted[name]
	})
	switch {
	case opts.Docker && opts.Compression.Type == blobs.EStargz:
		return opts, nil, errors.New(`exporter option "compression=estargz" conflicts with "oci-mediatypes=false"`)
	case opts.Docker && artifact:
		return opts, nil, errors.New(`exporter option "oci-artifact=true" conflicts with "oci-mediatypes=false"`)
	}
	return opts, rest, opts.Compression.Check()
}

// parseEpoch reads source-date-epoch. If it is empty, the output uses no epoch.
func parseEpoch(attrs map[string]string) (*Epoch, error) {
	text, ok := attrs["source-date-epoch"]
	if !ok {
		return nil, nil //nolint:nilnil // no epoch is a value here
	}
	if text == "" {
		return &Epoch{}, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("invalid source-date-epoch %q: want seconds since 1970", text)
	}
	at := time.Unix(seconds, 0).UTC()
	return &Epoch{Time: &at}, nil
}

// FilesOptions configures how the files of a build are written.
type FilesOptions struct {
	// Split writes each platform into its own directory. If it is nil, that is done if
	// the build has an index.
	Split *bool
	// Delete removes files in the directory that are not in the result.
	Delete bool
	// Source is the directory of the result that is written, or "" for all of it.
	Source string
	Epoch  *Epoch
}

// ParseFiles reads the attributes of the outputs local and tar, and returns the other
// attributes.
func ParseFiles(attrs map[string]string) (FilesOptions, map[string]string, error) {
	var opts FilesOptions
	var err error
	if opts.Epoch, err = parseEpoch(attrs); err != nil {
		return opts, nil, err
	}
	rest := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		value := attrs[name]
		switch name {
		case "source-date-epoch", "attestation-prefix":
		case "platform-split":
			split, err := strconv.ParseBool(value)
			if err != nil {
				return opts, nil, fmt.Errorf("non-bool value for platform-split: %s: %w", value, err)
			}
			opts.Split = &split
		case "mode":
			switch strings.ToLower(strings.TrimSpace(value)) {
			case "", "copy":
			case "delete":
				opts.Delete = true
			default:
				return opts, nil, fmt.Errorf("invalid local exporter mode %q", value)
			}
		case "src":
			if value == "" {
				return opts, nil, errors.New("empty value for src; omit it to export the entire filesystem")
			}
			opts.Source = value
		default:
			rest[name] = value
		}
	}
	return opts, rest, nil
}

func (o FilesOptions) split(b Build) bool {
	if o.Split != nil {
		return *o.Split
	}
	return b.Multi
}
