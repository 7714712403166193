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

// Client talks to registries. It is safe for concurrent use.
type Client struct {
	store  *storage.Store
	opts   Options
	logger *slog.Logger
	memory func() *blobs.Memory
}

// New makes a client. The store may be nil for what needs none: Candidates,
// Resolve, ResolveLayout, Login and Logout.
func New(store *storage.Store, opts Options) *Client {
	c := &Client{store: store, opts: opts, logger: opts.Logger}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	c.memory = sync.OnceValue(c.openMemory)
	return c
}

// openMemory opens what is remembered of compressed layers beside the layers.
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

// Maker compresses layers of the store and remembers what they gave.
func (c *Client) Maker() *blobs.Maker {
	return &blobs.Maker{Open: c.store.OpenDiff, Memory: c.memory(), Logger: c.logger}
}

var errNoStore = errors.New("no store is open")

// system is what go.podman.io/image is told about the user's wishes.
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
		// Beside the layers there is room; /tmp may be small.
		if dir, err := c.store.StateDir("tmp"); err == nil {
			sys.BigFilesTemporaryDir = dir
		}
	}
	return sys
}

// systemFor is for reading: it adds the platform that is picked from a
// multi-platform image.
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

// policy is what policy.json says about the signatures of images that come in.
// Where there is no such file everything is accepted, as docker does.
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
