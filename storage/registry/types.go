package registry

import (
	"errors"
	"log/slog"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
)

// The compressions of PushOptions.
const (
	Gzip         = blobs.Gzip
	Zstd         = blobs.Zstd
	Uncompressed = blobs.Uncompressed
)

// The formats of SaveOptions.
const (
	FormatOCI    = "oci"
	FormatDocker = "docker"
)

var (
	// ErrUnauthorized is wrapped by errors that say a registry wants a login.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrNotFound is wrapped by errors that say a registry or layout does not
	// have what was asked for.
	ErrNotFound = errors.New("not found")
	// ErrPlatform is wrapped when an image exists but not for the platform.
	ErrPlatform = errors.New("no image for the platform")
)

// Options says how registries are talked to. The zero value is what podman does
// by default.
type Options struct {
	// AuthFile replaces the default places of auth.json.
	AuthFile string
	// TLSVerify nil leaves it to registries.conf; false accepts any certificate
	// and plain HTTP.
	TLSVerify *bool
	// PullTLSVerify is TLSVerify for what is only read, nil for the same.
	PullTLSVerify *bool
	// CertDir replaces the default places of certs.d for every registry at
	// once; HostCertDir replaces them, too, and has a directory HOST[:PORT] for
	// each.
	CertDir, HostCertDir string
	// RegistriesConf replaces the default places of registries.conf,
	// RegistriesConfDir those of registries.conf.d, which is read on top of it.
	RegistriesConf, RegistriesConfDir string
	// PushRetries and PullRetries are how often what failed is tried again,
	// after a second, two, four and so on.
	PushRetries, PullRetries int
	// IgnoreImmutableTags takes a push for done when the registry refuses to
	// move a tag that is there already.
	IgnoreImmutableTags bool
	// SignaturePolicy replaces the default places of policy.json.
	SignaturePolicy string
	// UserAgent is sent with every request, "" for a default one.
	UserAgent string
	Logger    *slog.Logger
}

// Progress hears how blobs move.
type Progress = blobs.Progress

// Resolved is what a name stands for.
type Resolved struct {
	// Ref is NAME@DIGEST without a tag, pinned to Digest.
	Ref string
	// Name is the complete name that was asked for.
	Name string
	// Digest is of the top object: the index of a multi-platform image, else
	// the manifest.
	Digest digest.Digest
	// ManifestDigest is of the platform's manifest.
	ManifestDigest digest.Digest
	// Config and Manifest are of the platform's image, MediaType the manifest's.
	Config, Manifest []byte
	MediaType        string
	Platform         ocispec.Platform
}

// PullOptions says what to pull.
type PullOptions struct {
	// Platform picks from a multi-platform image; zero is this machine's.
	Platform ocispec.Platform
	// OnlyPlatform refuses an image that has one platform and another than that
	// with ErrPlatform.
	OnlyPlatform bool
	// Progress may be nil.
	Progress Progress
}

// Source is an image to be written somewhere. It need not be recorded in the
// store; its layers must be.
type Source struct {
	Config []byte
	// Layers are base first.
	Layers []storage.Layer
	// Docker asks for docker's schema 2 media types instead of OCI's.
	Docker bool
	// Annotations are of the manifest; docker's has none.
	Annotations map[string]string
	// Index is set for an index of several images, which are in Images in its
	// order; of the above only Docker counts then.
	Index  []byte
	Images []Source
}

// PushOptions says how to push.
type PushOptions struct {
	// Compression is Gzip, Zstd or Uncompressed; "" is Gzip.
	Compression string
	// Level is on the compression's own scale, nil for its default.
	Level *int
	// Tags are further tags in the same repository for the same manifest.
	Tags []string
	// Progress may be nil.
	Progress Progress
}

// SaveOptions says how Save writes.
type SaveOptions struct {
	// Format is FormatOCI or FormatDocker; "" is FormatOCI.
	Format string
	// Compression is of the layers, as in PushOptions, with "" being Gzip for an
	// OCI archive. Layers of a docker archive are never compressed.
	Compression string
	// Progress may be nil.
	Progress Progress
}

// Login is what a user types.
type Login struct {
	// Registry is HOST[:PORT], optionally with /NAMESPACE.
	Registry           string
	Username, Password string
}
