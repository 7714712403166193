package registry

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage/pkg/configfile"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
)

const defaultUserAgent = "shale"

// Client reads from and writes to registries, archives and OCI layouts. It is safe for
// concurrent use.
type Client struct {
	store  *storage.Store
	opts   Options
	logger *slog.Logger
	memory func() *blobs.Memory
}

// New returns a client. The store may be nil. Without a store Pull, PullLayout, Load,
// Save, Push and SourceOf return an error, and Holds and Maker must not be called.
func New(store *storage.Store, opts Options) *Client {
	c := &Client{store: store, opts: opts, logger: opts.Logger}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	c.memory = sync.OnceValue(c.openMemory)
	return c
}

// openMemory opens the records of compressed layers, which are kept next to the layers.
func (c *Client) openMemory() *blobs.Memory {
	if c.store == nil {
		return blobs.OpenMemory("")
	}
	dir, err := c.store.StateDir("blobs")
	if err != nil {
		c.logger.Debug("compressed layers are not remembered", "error", err)
	}
	return blobs.OpenMemory(dir)
}

// Maker returns a Maker that compresses layers of the store and remembers the resulting
// blobs. The client must have a store.
func (c *Client) Maker() *blobs.Maker {
	return &blobs.Maker{Open: c.store.OpenDiff, Memory: c.memory(), Logger: c.logger}
}

var errNoStore = errors.New("no store is open")

// system returns the options of c in the form of go.podman.io/image.
func (c *Client) system() *types.SystemContext {
	sys := &types.SystemContext{
		AuthFilePath:                c.opts.AuthFile,
		DockerCertPath:              c.opts.CertDir,
		DockerPerHostCertDirPath:    c.opts.HostCertDir,
		SystemRegistriesConfPath:    c.opts.RegistriesConf,
		SystemRegistriesConfDirPath: c.opts.RegistriesConfDir,
		SignaturePolicyPath:         c.opts.SignaturePolicy,
		DockerRegistryUserAgent:     c.opts.UserAgent,
	}
	if sys.AuthFilePath == "" {
		sys.AuthFilePath = os.Getenv("REGISTRY_AUTH_FILE")
	}
	if sys.AuthFilePath == "" {
		sys.AuthFilePath = authFile()
	}
	if sys.DockerRegistryUserAgent == "" {
		sys.DockerRegistryUserAgent = defaultUserAgent
	}
	if c.opts.TLSVerify != nil {
		sys.DockerInsecureSkipTLSVerify = types.NewOptionalBool(!*c.opts.TLSVerify)
	}
	if c.store != nil {
		// The file system of the layers has enough space. /tmp may be small.
		if dir, err := c.store.StateDir("tmp"); err == nil {
			sys.BigFilesTemporaryDir = dir
		}
	}
	return sys
}

// systemFor returns the options for reading an image. They include the platform to select
// from a multi-platform image; the zero platform is that of this machine.
func (c *Client) systemFor(platform ocispec.Platform) *types.SystemContext {
	sys := c.system()
	if c.opts.PullTLSVerify != nil {
		sys.DockerInsecureSkipTLSVerify = types.NewOptionalBool(!*c.opts.PullTLSVerify)
	}
	if platform.OS == "" && platform.Architecture == "" {
		platform = platforms.DefaultSpec()
	}
	platform = platforms.Normalize(platform)
	sys.OSChoice, sys.ArchitectureChoice, sys.VariantChoice = platform.OS, platform.Architecture, platform.Variant
	return sys
}

// policy returns the signature policy for images that are read, from policy.json. If
// there is no such file, all images are accepted, as by docker.
func (c *Client) policy(sys *types.SystemContext) (*signature.PolicyContext, error) {
	policy, err := signature.DefaultPolicy(sys)
	if c.opts.SignaturePolicy == "" && errors.Is(err, configfile.ErrConfigFileNotFound) {
		policy, err = acceptAnything(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read signature policy: %w", err)
	}
	return newPolicyContext(policy)
}

func acceptAnything() *signature.Policy {
	return &signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}}
}

func newPolicyContext(policy *signature.Policy) (*signature.PolicyContext, error) {
	pc, err := signature.NewPolicyContext(policy)
	if err != nil {
		return nil, fmt.Errorf("prepare signature policy: %w", err)
	}
	return pc, nil
}
