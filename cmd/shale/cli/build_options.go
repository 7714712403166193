package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/builder/exec"
	"github.com/shale-build/shale/builder/frontend"
)

// lookupEnv looks up an environment variable, as os.LookupEnv does.
type lookupEnv func(name string) (string, bool)

// buildOptions converts the flags to the options of the builder. Its errors are usage
// errors.
func buildOptions(c *cli.Context, env lookupEnv) (builder.Options, error) {
	opts := builder.Options{
		Options: frontend.Options{
			Context:       c.Args().First(),
			Dockerfile:    c.String("file"),
			Target:        c.String("target"),
			AddHosts:      c.StringSlice("add-host"),
			NoCache:       c.Bool("no-cache"),
			NoCacheFilter: splitCommas(c.StringSlice("no-cache-filter")),
			Pull:          c.Bool("pull"),
			Ulimits:       c.StringSlice("ulimit"),
			SourcePolicy:  c.String("source-policy-file"),
			IgnoreRego:    c.IsSet("policy"),
		},
		Tags:  c.StringSlice("tag"),
		Allow: c.StringSlice("allow"),
		SSH:   parseSSH(c.StringSlice("ssh")),
	}
	if opts.Context == "-" && opts.Dockerfile == "-" {
		return opts, errors.New("standard input cannot be both the context and the Dockerfile")
	}
	var errs [17]error
	opts.BuildArgs, errs[13] = parseBuildArgs(c.StringSlice("build-arg"), env)
	opts.Labels, errs[14] = parseLabels(c.StringSlice("label"))
	opts.Contexts, errs[0] = parseBuildContexts(c.StringSlice("build-context"))
	opts.Network, errs[1] = parseChoice("network", c.String("network"), "default", "none", "host", "private")
	opts.Format, errs[2] = parseChoice("format", c.String("format"), "oci", "docker")
	opts.Platforms, errs[3] = parsePlatforms(c.StringSlice("platform"))
	opts.Exports, errs[4] = outputs(c)
	opts.Epoch = parseEpoch(env, opts.BuildArgs)
	errs[6] = errors.Join(checkUlimits(opts.Ulimits), checkHosts(opts.AddHosts))
	opts.Secrets, errs[8] = parseSecrets(c.StringSlice("secret"))
	_, errs[9] = exec.ParseAllow(opts.Allow)
	opts.Resources, errs[10] = parseResources(c)
	opts.CacheFrom, errs[11] = parseCacheFrom(c.StringSlice("cache-from"))
	opts.CacheTo, errs[12] = parseCacheTo(c.StringSlice("cache-to"))
	opts.GC, errs[15] = parseGC(c.String(gcName))
	opts.CacheGrace, errs[16] = parseGrace(c.String("cache-grace"))
	if size := c.String("shm-size"); size != "" {
		opts.ShmSize, errs[7] = parseSize("shm-size", size)
	}
	for _, err := range errs {
		if err != nil {
			return opts, err
		}
	}
	return opts, nil
}

// parseBuildArgs parses KEY=VALUE, and KEY, which takes its value from env. If env does
// not contain the KEY, parseBuildArgs omits it, as docker does. The default value in
// the Dockerfile then applies.
func parseBuildArgs(values []string, env lookupEnv) (map[string]string, error) {
	args := map[string]string{}
	for _, v := range values {
		key, value, found := strings.Cut(v, "=")
		if key == "" {
			return nil, fmt.Errorf("invalid --build-arg %q: the key is empty", v)
		}
		if !found {
			if value, found = env(key); !found {
				continue
			}
		}
		args[key] = value
	}
	return args, nil
}

func parseLabels(values []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, v := range values {
		key, value, _ := strings.Cut(v, "=")
		if key == "" {
			return nil, fmt.Errorf("invalid --label %q: the key is empty", v)
		}
		labels[key] = value
	}
	return labels, nil
}

func parseBuildContexts(values []string) (map[string]string, error) {
	contexts := map[string]string{}
	for _, v := range values {
		name, value, found := strings.Cut(v, "=")
		if !found || name == "" || value == "" {
			return nil, fmt.Errorf("invalid --build-context %q: want NAME=VALUE", v)
		}
		contexts[name] = value
	}
	return contexts, nil
}

func parseChoice(flag, value string, choices ...string) (string, error) {
	if slices.Contains(choices, value) {
		return value, nil
	}
	return "", fmt.Errorf("invalid --%s %q: it is one of %s", flag, value, strings.Join(choices, ", "))
}

// parsePlatforms parses platforms that are given separately or joined by commas.
// "local" is the platform of this machine.
func parsePlatforms(values []string) ([]ocispec.Platform, error) {
	var out []ocispec.Platform
	for _, v := range splitCommas(values) {
		if v == "local" {
			out = append(out, platforms.DefaultSpec())
			continue
		}
		p, err := platforms.Parse(v)
		if err != nil {
			return nil, fmt.Errorf("invalid --platform %q: want OS/ARCH[/VARIANT]", v)
		}
		out = append(out, platforms.Normalize(p))
	}
	return out, nil
}

func splitCommas(values []string) []string {
	var out []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

// epochEnv is the environment variable that fixes all times of an image
// (reproducible-builds.org).
const epochEnv = "SOURCE_DATE_EPOCH"

// parseEpoch returns the time in SOURCE_DATE_EPOCH, or nil if the variable has no
// number. A value that is not a number, for example "context", is for the front end:
// parseEpoch adds it to args as a build argument, unless args already contains one.
func parseEpoch(env lookupEnv, args map[string]string) *time.Time {
	value, ok := env(epochEnv)
	if !ok || value == "" {
		return nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		if _, given := args[epochEnv]; !given && args != nil {
			args[epochEnv] = value
		}
		return nil
	}
	t := time.Unix(seconds, 0).UTC()
	return &t
}

func checkUlimits(values []string) error {
	for _, v := range values {
		if _, err := units.ParseUlimit(v); err != nil {
			return fmt.Errorf("invalid --ulimit %q: %w", v, err)
		}
	}
	return nil
}

// splitHost splits HOST:IP or HOST=IP. docker added the second form later, for IPv6.
func splitHost(value string) (host, ip string, err error) {
	i := strings.IndexAny(value, "=:")
	if i < 1 {
		return "", "", fmt.Errorf("invalid --add-host %q: want HOST:IP or HOST=IP", value)
	}
	host, ip = value[:i], strings.TrimSuffix(strings.TrimPrefix(value[i+1:], "["), "]")
	if ip == "host-gateway" {
		return "", "", fmt.Errorf("invalid --add-host %q: host-gateway is not available, as there is no bridge to the host", value)
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		return "", "", fmt.Errorf("invalid --add-host %q: %q is not an IP address", value, ip)
	}
	return host, ip, nil
}

func checkHosts(values []string) error {
	for _, v := range values {
		if _, _, err := splitHost(v); err != nil {
			return err
		}
	}
	return nil
}
