package registry

import (
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
)

// Client talks to registries. It is safe for concurrent use.
type Client struct{}

func New(store *storage.Store, opts Options) *Client { return &Client{} }

// Candidates returns the complete names that a name may stand for, in order.
func (c *Client) Candidates(name string) ([]string, error) { return nil, nil }

// Resolve asks the registry what ref stands for.
func (c *Client) Resolve(ctx context.Context, ref string, platform ocispec.Platform) (Resolved, error) {
	return Resolved{}, nil
}

// Pull brings an image into the store and names it ref.
func (c *Client) Pull(ctx context.Context, ref string, opts PullOptions) (storage.Image, error) {
	return storage.Image{}, nil
}

// ResolveLayout is Resolve for PATH[:TAG|@DIGEST], an OCI layout directory.
func (c *Client) ResolveLayout(ctx context.Context, layout string, platform ocispec.Platform) (Resolved, error) {
	return Resolved{}, nil
}

// PullLayout is Pull for PATH[:TAG|@DIGEST], an OCI layout directory. The image gets no name.
func (c *Client) PullLayout(ctx context.Context, layout string, opts PullOptions) (storage.Image, error) {
	return storage.Image{}, nil
}

// SourceOf makes a Source of an image of the store (a name or an ID).
func (c *Client) SourceOf(nameOrID string) (Source, error) { return Source{}, nil }

// Push writes src to dest (a complete name; tag latest when it has none).
func (c *Client) Push(ctx context.Context, src Source, dest string, opts PushOptions) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, nil
}

// Save writes images of the store (names or IDs) as one archive.
func (c *Client) Save(ctx context.Context, w io.Writer, images []string, opts SaveOptions) error {
	return nil
}

// Load reads an OCI or docker archive, compressed or not, into the store.
func (c *Client) Load(ctx context.Context, r io.Reader, opts PullOptions) ([]storage.Image, error) {
	return nil, nil
}

// Login verifies a login with the registry and remembers it.
func (c *Client) Login(ctx context.Context, login Login) error { return nil }

// LoggedIn returns the user name remembered for a registry, "" for none.
func (c *Client) LoggedIn(registry string) (string, error) { return "", nil }

// Logout forgets the login of a registry.
func (c *Client) Logout(registry string) error { return nil }

// LogoutAll forgets all logins.
func (c *Client) LogoutAll() error { return nil }
