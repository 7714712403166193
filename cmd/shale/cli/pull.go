package cli

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder/progress"
	"github.com/shale-build/shale/cmd/shale/cli/display"
	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/registry"
)

func pullCommand() *cli.Command {
	return &cli.Command{
		Name:        "pull",
		Usage:       "Download an image from a registry",
		ArgsUsage:   "NAME[:TAG|@DIGEST]",
		Description: "The ID of the image is printed on standard output, progress on standard error.",
		Flags: append(registryFlags(),
			&cli.StringFlag{Name: "platform", Usage: "pull the image for `OS/ARCH[/VARIANT]`"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"},
		),
		Action: func(c *cli.Context) error {
			if err := wantArguments(c, 1, 1); err != nil {
				return err
			}
			platform, err := onePlatform(c)
			if err != nil {
				return usageError(c, err.Error())
			}
			return withStore(c, func(s *session) error {
				img, err := pull(c, s, c.Args().First(), platform)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(c.App.Writer, imageID(img.ID))
				return err
			})
		},
	}
}

// registryFlags returns the flags of every command that talks to a registry.
func registryFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "authfile", EnvVars: []string{"REGISTRY_AUTH_FILE"}, Usage: "read registry logins from `FILE`"},
		&cli.BoolFlag{Name: "tls-verify", Value: true, Usage: "require https and check the certificates of registries"},
	}
}

// registryOptions returns the options that registryFlags set. If the user does not set
// --tls-verify, registries.conf decides about TLS. s may be nil.
func registryOptions(c *cli.Context, s *session) registry.Options {
	opts := registry.Options{AuthFile: c.String("authfile"), UserAgent: "shale/" + Version}
	if s != nil {
		opts.Logger = s.logger
	}
	if c.IsSet("tls-verify") {
		verify := c.Bool("tls-verify")
		opts.TLSVerify = &verify
	}
	return opts
}

func onePlatform(c *cli.Context) (ocispec.Platform, error) {
	value := c.String("platform")
	if value == "" {
		return ocispec.Platform{}, nil
	}
	list, err := parsePlatforms([]string{value})
	if err != nil {
		return ocispec.Platform{}, err
	}
	if len(list) != 1 {
		return ocispec.Platform{}, fmt.Errorf("invalid --platform %q: want one platform", value)
	}
	return list[0], nil
}

// pull pulls an image. If name is short, pull tries the complete names for which it may
// stand, in order.
func pull(c *cli.Context, s *session, name string, platform ocispec.Platform) (img storage.Image, err error) {
	client := registry.New(s.store, registryOptions(c, s))
	names, err := client.Candidates(name)
	if err != nil {
		return storage.Image{}, err
	}
	if len(names) == 0 {
		return storage.Image{}, fmt.Errorf("pull %s: no registry is configured for short names: give the complete name", name)
	}
	var errs []error
	for _, full := range names {
		err := withTransfer(c, "pulling "+full, func(p registry.Progress) error {
			img, err = client.Pull(c.Context, full, registry.PullOptions{Platform: platform, OnlyPlatform: platform.OS != "", Progress: p})
			return err
		})
		if err == nil {
			return img, nil
		}
		errs = append(errs, err)
		if c.Context.Err() != nil {
			break
		}
	}
	return storage.Image{}, errors.Join(errs...)
}

// withTransfer calls do and shows its progress as one step on standard error. With
// --quiet, it shows no progress.
func withTransfer(c *cli.Context, what string, do func(registry.Progress) error) (err error) {
	if c.Bool("quiet") {
		return do(nil)
	}
	shown, err := display.New(display.Options{Out: c.App.ErrWriter})
	if err != nil {
		return err
	}
	t := newTransfer(shown, what)
	err = do(t)
	t.done(err)
	if closeErr := shown.Close(); err == nil {
		err = closeErr
	}
	return err
}

// transfer shows a transfer as one step. Each blob is a status of this step.
type transfer struct {
	sink   progress.Sink
	vertex progress.Vertex

	mu      sync.Mutex
	started map[string]time.Time
}

var _ registry.Progress = (*transfer)(nil)

func newTransfer(sink progress.Sink, what string) *transfer {
	now := time.Now()
	t := &transfer{sink: sink, started: map[string]time.Time{}}
	t.vertex = progress.Vertex{Digest: digest.FromString(what), Name: what, Started: &now}
	sink.Vertex(t.vertex)
	return t
}

// Update implements registry.Progress.
func (t *transfer) Update(id string, current, total int64, done bool) {
	now := time.Now()
	t.mu.Lock()
	started, ok := t.started[id]
	if !ok {
		started = now
		t.started[id] = now
	}
	t.mu.Unlock()
	st := progress.Status{
		ID: id, Vertex: t.vertex.Digest, Current: current, Total: total, Timestamp: now, Started: &started,
	}
	if done {
		st.Completed = &now
	}
	t.sink.Status(st)
}

func (t *transfer) done(err error) {
	now := time.Now()
	t.vertex.Completed = &now
	if err != nil {
		t.vertex.Error = err.Error()
	}
	t.sink.Vertex(t.vertex)
}
