package registry

import (
	"errors"
	"log/slog"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
)

// The compressions of PushOptions and SaveOptions.
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
	// ErrUnauthorized is wrapped by errors of requests that the registry refuses: it
	// requires a login, rejects the credentials, or has no such repository.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrNotFound is wrapped by errors that report that a registry or layout does not
	// have the image, or that there is no login to remove.
	ErrNotFound = errors.New("not found")
	// ErrPlatform is wrapped by errors that report that an image exists, but not for the
	// platform.
	ErrPlatform = errors.New("no image for the platform")
)

// Options configures the access to registries. The zero value has podman's defaults.
type Options struct {
	// AuthFile replaces the default locations of auth.json. If it is empty, the
	// environment variable REGISTRY_AUTH_FILE is used.
	AuthFile string
	// TLSVerify overrides registries.conf if it is not nil. False accepts any certificate
	// and plain HTTP.
	TLSVerify *bool
	// PullTLSVerify is TLSVerify for Resolve, Pull, Holds, Blob and OpenArtifact. If it is nil,
	// TLSVerify applies to them, too.
	PullTLSVerify *bool
	// CertDir replaces the default locations of certs.d with one directory for all
	// registries. HostCertDir replaces them with a directory that contains one directory
	// HOST[:PORT] for each registry.
	CertDir, HostCertDir string
	// RegistriesConf replaces the default locations of registries.conf. RegistriesConfDir
	// replaces those of registries.conf.d. Its files are read after registries.conf.
	RegistriesConf, RegistriesConfDir string
	// PushRetries and PullRetries are the numbers of attempts after the first one fails.
	// The delay is one second before the second attempt and doubles each time.
	PushRetries, PullRetries int
	// IgnoreImmutableTags treats a push as successful if the registry refuses to move a
	// tag that exists already. A warning is logged.
	IgnoreImmutableTags bool
	// SignaturePolicy replaces the default locations of policy.json.
	SignaturePolicy string
	// UserAgent is sent with each request. If it is empty, it is "shale".
	UserAgent string
	Logger    *slog.Logger
}

// Progress receives the progress of blob transfers.
type Progress = blobs.Progress

// Resolved is the image that a name refers to, see Client.Resolve.
type Resolved struct {
	// Ref is NAME@DIGEST with the digest Digest and without a tag.
	Ref string
	// Name is the complete name that was resolved.
	Name string
	// Digest is the digest of the top object. This is the index of a multi-platform
	// image, or else the manifest.
	Digest digest.Digest
	// ManifestDigest is the digest of the manifest for the platform.
	ManifestDigest digest.Digest
	// Config and Manifest belong to the image for the platform. MediaType is the media
	// type of Manifest.
	Config, Manifest []byte
	MediaType        string
	Platform         ocispec.Platform
}

// PullOptions configures a pull.
type PullOptions struct {
	// Platform selects an image of a multi-platform image. The zero value is the platform
	// of this machine.
	Platform ocispec.Platform
	// OnlyPlatform makes a pull fail with ErrPlatform if an image without an index is for
	// another platform.
	OnlyPlatform bool
	// Progress may be nil.
	Progress Progress
}

// Source is an image to be written to a registry or an archive. It need not be recorded
// in the store, but its layers must be.
type Source struct {
	Config []byte
	// Layers are ordered from the base to the top.
	Layers []storage.Layer
	// Docker selects the media types of docker's schema 2 instead of those of OCI.
	Docker bool
	// Annotations are those of the manifest. A manifest of docker's schema 2 has none.
	Annotations map[string]string
	// Index is set for an index of several images. Images are these images in the order
	// of the index. If Index is set, of the fields above only Docker is used.
	Index  []byte
	Images []Source
}

// PushOptions configures a push.
type PushOptions struct {
	// Compression is Gzip, Zstd or Uncompressed. If it is empty, it is Gzip.
	Compression string
	// Level is a level on the own scale of the compression, or nil for its default.
	Level *int
	// Tags are additional tags for the same manifest in the same repository.
	Tags []string
	// Progress may be nil.
	Progress Progress
}

// SaveOptions configures Save.
type SaveOptions struct {
	// Format is FormatOCI or FormatDocker. If it is empty, it is FormatOCI.
	Format string
	// Compression is the compression of the layers of an OCI archive, see
	// PushOptions.Compression. Layers of a docker archive are not compressed.
	Compression string
	// Progress may be nil.
	Progress Progress
}

// Login holds the credentials for a registry.
type Login struct {
	// Registry is HOST[:PORT], optionally with /NAMESPACE.
	Registry           string
	Username, Password string
}
