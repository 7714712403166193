package kaniko

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/builder/frontend"
	"github.com/shale-build/shale/builder/secrets"
	"github.com/shale-build/shale/storage/registry"
)

// unnamed is the name that kaniko gives to an image in an archive if there is no
// destination.
const unnamed = "unset-repo/unset-image-name"

// Plan contains the options of the builder and of the registry client for a command
// line.
type Plan struct {
	// Builds must be carried out one after the other. The last one builds the result.
	// The builds before it are for further targets, and only fill the cache.
	Builds []builder.Options
	// Registry holds the options of the registry client.
	Registry registry.Options
	// LoginFiles are the files that may contain logins. Steps in place must not see
	// them.
	LoginFiles []string

	closers []func() error
}

// Close closes the context and removes the temporary files of the plan.
func (p *Plan) Close() error {
	var errs []error
	for _, v := range slices.Backward(p.closers) {
		errs = append(errs, v())
	}
	return errors.Join(errs...)
}

// Prepare returns the plan for the builder. stdin is used if the context is
// tar://stdin. A context that is a stream is opened now and read when the build begins.
// The caller must close the plan. Prepare may add warnings to the Command.
func (c *Command) Prepare(ctx context.Context, stdin io.Reader) (_ *Plan, err error) {
	p := &Plan{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := c.prepareRegistries(p); err != nil {
		return nil, err
	}
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	if err := c.openContext(ctx, stdin, p, &opts); err != nil {
		return nil, err
	}
	return p, c.addBuilds(p, opts)
}

// PreparePush returns the plan for the registry client. It has no builds. The caller
// must close the plan.
func (c *Command) PreparePush() (*Plan, error) {
	p := &Plan{}
	if err := c.prepareRegistries(p); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// prepareRegistries sets the options of the registry client, and writes the files that
// it reads.
func (c *Command) prepareRegistries(p *Plan) error {
	regs, err := c.registries()
	if err != nil {
		return err
	}
	logins, err := c.logins(slices.Concat(regs.hosts(), c.baseHosts()))
	if err != nil {
		return err
	}
	if logins.CredsStore != "" {
		regs.helpers = []string{logins.CredsStore}
	}
	dir, err := os.MkdirTemp("", "shale-kaniko-")
	if err != nil {
		return fmt.Errorf("make directory for the configuration of registries: %w", err)
	}
	p.closers = append(p.closers, func() error { return os.RemoveAll(dir) })
	if err := errors.Join(regs.writeConf(dir, c.env, &p.Registry), c.writeCerts(dir, &p.Registry)); err != nil {
		return fmt.Errorf("configure registries: %w", err)
	}
	path, release, err := logins.inMemory()
	if err != nil {
		return err
	}
	p.closers = append(p.closers, release)
	p.Registry.AuthFile = path
	p.LoginFiles = c.authFiles()
	p.Registry.PushRetries, p.Registry.PullRetries = c.pushRetry, max(c.downloadRetry, c.extractRetry)
	p.Registry.IgnoreImmutableTags = c.ignoreImmutable
	if c.insecurePull || c.skipVerifyPull {
		verify := false
		p.Registry.PullTLSVerify = &verify
	}
	return nil
}

// options returns the options of the builder that do not depend on the context.
func (c *Command) options() (builder.Options, error) {
	opts := builder.Options{
		Options: frontend.Options{
			BuildArgs: map[string]string{},
			Labels:    map[string]string{},
			// kaniko runs steps in its own container, which has this network.
			Network: "host",
			// Without a cache, kaniko does not use earlier results. It always asks the
			// registry for the base image.
			NoCache: !c.useCache(), Pull: true,
		},
		Format: c.format,
		Squash: c.singleSnapshot,
	}
	if opts.Format == "" {
		opts.Format = "oci"
	}
	for _, arg := range c.buildArgs {
		key, value, found := strings.Cut(arg, "=")
		if key == "" {
			return opts, fmt.Errorf("invalid --build-arg %q: want KEY[=VALUE]", arg)
		}
		if !found {
			value, _ = c.env(key)
		}
		opts.BuildArgs[key] = value
	}
	for _, label := range c.labels {
		key, value, found := strings.Cut(label, "=")
		if !found || key == "" {
			return opts, fmt.Errorf("invalid --label %q: want KEY=VALUE", label)
		}
		opts.Labels[key] = value
	}
	for _, value := range c.secrets {
		s, err := secrets.Parse(value)
		if err != nil {
			return opts, fmt.Errorf("invalid --secret %q: %w", value, err)
		}
		opts.Secrets = append(opts.Secrets, s)
	}
	if c.platform != "" {
		platform, err := platforms.Parse(c.platform)
		if err != nil {
			return opts, fmt.Errorf("invalid --custom-platform %q: want OS/ARCH[/VARIANT]", c.platform)
		}
		opts.Platforms = []ocispec.Platform{platforms.Normalize(platform)}
	}
	if c.reproducible {
		epoch := time.Unix(0, 0).UTC()
		opts.Epoch = &epoch
	}
	if c.git.insecureTLS {
		// Git reads this setting from the environment.
		if err := os.Setenv("GIT_SSL_NO_VERIFY", "true"); err != nil {
			return opts, err
		}
	}
	return opts, c.addCaches(&opts)
}

// useCache reports whether the build may use the results of earlier builds. Steps are
// cached together, so it is not possible to cache only the results of COPY.
func (c *Command) useCache() bool {
	if c.cache && !c.runLayers && c.copyLayers {
		c.warn("--cache-copy-layers has no effect without --cache-run-layers: nothing is cached")
	}
	return c.cache && c.runLayers
}

const ociPrefix = "oci:"

// cacheName returns the name of the cache in a registry, or "" if the cache is not
// there.
func (c *Command) cacheName() string {
	switch {
	case !c.cache || !c.runLayers, strings.HasPrefix(c.cacheRepo, ociPrefix):
		return ""
	case c.cacheRepo != "":
		return c.cacheRepo
	}
	named, err := reference.ParseNormalizedNamed(c.destinations[0])
	if err != nil {
		return "" // the builder reports the error
	}
	return named.Name() + "/cache"
}

func (c *Command) addCaches(opts *builder.Options) error {
	if opts.NoCache {
		return nil
	}
	if c.cacheTTL <= 0 {
		return fmt.Errorf("invalid --cache-ttl %s: it is a time such as 336h", c.cacheTTL)
	}
	from := builder.CacheImport{Type: "registry", Attrs: map[string]string{"ref": c.cacheName(), "max-age": c.cacheTTL.String()}}
	// If the cache cannot be written, the build must not fail.
	to := builder.CacheExport{Type: "registry", Attrs: map[string]string{
		"ref": c.cacheName(), "mode": "max", "max-age": c.cacheTTL.String(), "ignore-error": "true",
	}}
	if dir, ok := strings.CutPrefix(c.cacheRepo, ociPrefix); ok {
		from.Type, to.Type = "local", "local"
		from.Attrs["src"], to.Attrs["dest"] = dir, dir
		delete(from.Attrs, "ref")
		delete(to.Attrs, "ref")
	}
	maps.Copy(to.Attrs, c.compressionAttrs())
	opts.CacheFrom = []builder.CacheImport{from}
	if !c.noPushCache {
		opts.CacheTo = []builder.CacheExport{to}
	}
	return nil
}

func (c *Command) compressionAttrs() map[string]string {
	attrs := map[string]string{}
	if c.compression != "" {
		attrs["compression"] = c.compression
	}
	if c.level >= 0 {
		attrs["compression-level"] = strconv.Itoa(c.level)
	}
	return attrs
}

// addBuilds adds a build for each target. The build for the first target is the last
// one, because it writes the outputs.
func (c *Command) addBuilds(p *Plan, opts builder.Options) error {
	exports, err := c.exports()
	if err != nil {
		return err
	}
	targets := c.targets
	if len(targets) == 0 {
		targets = []string{""}
	}
	if opts.Stdin != nil && len(targets) > 1 {
		c.warn("--target: of a context that is a stream only %s is built", targets[0])
		targets = targets[:1]
	}
	for _, target := range targets[1:] {
		further := opts
		further.Target = target
		further.Exports = []builder.Export{{Type: "cacheonly", Attrs: map[string]string{}}}
		p.Builds = append(p.Builds, further)
	}
	opts.Target, opts.Tags, opts.Exports = targets[0], c.destinations, exports
	p.Builds = append(p.Builds, opts)
	return nil
}

// exports returns the outputs. They must not differ in any attribute that changes the
// manifest, because the image has only one digest.
func (c *Command) exports() ([]builder.Export, error) {
	form := c.compressionAttrs()
	if c.reproducible {
		form["rewrite-timestamp"] = "true"
	}
	for _, a := range c.annotations {
		key, value, found := strings.Cut(a, "=")
		if !found || key == "" {
			return nil, fmt.Errorf("invalid --annotation %q: want KEY=VALUE", a)
		}
		form["annotation."+key] = value
	}
	var exports []builder.Export
	add := func(kind, dest string, more map[string]string) {
		attrs := maps.Clone(form)
		maps.Copy(attrs, more)
		exports = append(exports, builder.Export{Type: kind, Dest: dest, Attrs: attrs})
	}
	if c.layoutPath != "" {
		add("oci", c.layoutPath, map[string]string{"tar": "false"})
	}
	if c.tarPath != "" {
		more := map[string]string{}
		if len(c.destinations) == 0 {
			more["name"] = unnamed
		}
		add("docker", c.tarPath, more)
	}
	switch {
	case !c.noPush:
		add("registry", "", nil)
	case len(exports) > 0:
	case c.wantsDigest():
		add("image", "", map[string]string{"store": "false"})
	default:
		add("cacheonly", "", nil)
	}
	return exports, nil
}
