package conformance

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Reference builds with BuildKit. It uses docker's own client, buildx, or buildctl if
// buildx is not on PATH. BUILDKIT_HOST is the address of buildkitd.
//
// buildkitd reuses the files of an earlier transfer of a context if their size and time
// are equal. It also keeps the modes of earlier directories. So files of another case
// could get into a build. buildx distinguishes transfers by the name of the directory, so
// each build gets a directory with a new name. For buildctl, the earlier contexts are
// pruned before each build.
type Reference struct {
	Buildctl string
	Buildx   string // empty if buildx is not used
	Host     string
	config   string // directory of buildx's builders
}

// NewReference returns a Reference that uses buildctl and, if found, buildx from PATH. It
// returns an error if buildctl or BUILDKIT_HOST is missing. CONFORMANCE_CLIENT=buildctl
// disables buildx.
func NewReference(ctx context.Context, dir string) (*Reference, error) {
	r := &Reference{Host: os.Getenv("BUILDKIT_HOST"), config: filepath.Join(dir, "buildx")}
	var err error
	if r.Buildctl, err = exec.LookPath("buildctl"); err != nil {
		return nil, fmt.Errorf("the reference needs buildctl: %w", err)
	}
	if r.Host == "" {
		return nil, errors.New("the reference needs BUILDKIT_HOST, the address of a running buildkitd")
	}
	if os.Getenv("CONFORMANCE_CLIENT") == "buildctl" {
		return r, nil
	}
	if r.Buildx, err = exec.LookPath("buildx"); err != nil {
		return r, nil //nolint:nilerr // buildctl does, but for few cases
	}
	cmd := exec.CommandContext(ctx, r.Buildx, "create", "--name", "reference", "--driver", "remote", r.Host)
	cmd.Env = append(cleanEnv(), "HOME="+dir, "BUILDX_CONFIG="+r.config)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("set up buildx: %w: %s", err, out)
	}
	return r, nil
}

// Build implements Builder with buildx or buildctl.
func (r *Reference) Build(ctx context.Context, req Request) (Said, error) {
	if r.Buildx == "" {
		args, err := buildctlArgs(req)
		if err != nil {
			return Said{}, err
		}
		prune := exec.CommandContext(ctx, r.Buildctl, "prune", "--filter", "type==source.local")
		prune.Env = append(cleanEnv(), "BUILDKIT_HOST="+r.Host)
		if out, err := prune.CombinedOutput(); err != nil {
			return Said{}, fmt.Errorf("prune earlier contexts: %w: %s", err, out)
		}
		return start(ctx, r.Buildctl, args, req, append(cleanEnv(), append(req.Env, "HOME="+req.Dir, "BUILDKIT_HOST="+r.Host)...))
	}
	req, err := renamed(req)
	if err != nil {
		return Said{}, err
	}
	// buildctl and shale have a flag for this; docker's client uses a variable.
	if i := slices.Index(req.Flags, "--source-policy-file"); i >= 0 {
		req.Env = append(req.Env, "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY="+req.Flags[i+1])
		req.Flags = slices.Delete(req.Flags, i, i+2)
	}
	args := append([]string{"--builder", "reference", "build", "--progress", "rawjson", "--provenance=false"}, req.Flags...)
	for _, output := range req.Outputs {
		args = append(args, "--output", output)
	}
	env := append(cleanEnv(), append(req.Env, "HOME="+req.Dir, "BUILDX_CONFIG="+r.config)...)
	return start(ctx, r.Buildx, append(args, req.Context), req, env)
}

// renamed returns req with new names for the local directories from which files are sent.
// The new names are symbolic links.
func renamed(req Request) (Request, error) {
	names := filepath.Join(filepath.Dir(req.Dir), "names")
	if err := os.MkdirAll(names, 0o755); err != nil {
		return req, err
	}
	rename := func(dir string) (string, error) {
		if info, err := os.Stat(filepath.Join(req.Dir, dir)); filepath.IsAbs(dir) || err != nil || !info.IsDir() {
			return dir, nil //nolint:nilerr // the builder has to complain
		}
		name := filepath.Join(names, rand.Text())
		return name, os.Symlink(filepath.Join(req.Dir, dir), name)
	}
	var err error
	if !isRemote(req.Context) {
		if req.Context, err = rename(req.Context); err != nil {
			return req, err
		}
	}
	req.Flags = slices.Clone(req.Flags)
	for i, flag := range req.Flags {
		name, dir, ok := strings.Cut(flag, "=")
		if !ok || i == 0 || req.Flags[i-1] != "--build-context" || isRemote(dir) {
			continue
		}
		if dir, err = rename(dir); err != nil {
			return req, err
		}
		req.Flags[i] = name + "=" + dir
	}
	return req, nil
}

// command collects buildctl's arguments.
type command struct {
	args     []string
	file     string
	hosts    []string
	ulimits  []string
	contexts int
	req      Request
}

func (c *command) opt(key, value string) { c.args = append(c.args, "--opt", key+"="+value) }

// buildctlArgs translates docker's flags to buildctl's options, as docker's client does.
// It returns an error if buildctl has no such option.
func buildctlArgs(req Request) ([]string, error) {
	c := &command{req: req, args: []string{"build", "--progress", "rawjson", "--frontend", "dockerfile.v0"}}
	flags := req.Flags
	for len(flags) > 0 {
		name := flags[0]
		flags = flags[1:]
		name, value, inline := strings.Cut(name, "=")
		if !inline && !isSwitch[name] {
			if len(flags) == 0 {
				return nil, fmt.Errorf("flag %s lacks its value", name)
			}
			value, flags = flags[0], flags[1:]
		}
		if err := c.flag(name, value); err != nil {
			return nil, err
		}
	}
	if len(c.hosts) > 0 {
		c.opt("add-hosts", strings.Join(c.hosts, ","))
	}
	if len(c.ulimits) > 0 {
		c.opt("ulimit", strings.Join(c.ulimits, ","))
	}
	c.sources()
	for _, env := range req.Env {
		if epoch, ok := strings.CutPrefix(env, "SOURCE_DATE_EPOCH="); ok {
			c.opt("build-arg:SOURCE_DATE_EPOCH", epoch)
		}
	}
	for _, output := range req.Outputs {
		c.args = append(c.args, "--output", output)
	}
	return c.args, nil
}

var isSwitch = map[string]bool{"--no-cache": true, "--pull": true}

func (c *command) sources() {
	if isRemote(c.req.Context) {
		c.opt("context", c.req.Context)
		if c.file != "" {
			c.opt("filename", c.file)
		}
		return
	}
	dir, name := c.req.Context, "Dockerfile"
	if c.file != "" {
		dir, name = filepath.Dir(c.file), filepath.Base(c.file)
	}
	c.args = append(c.args, "--local", "context="+c.req.Context, "--local", "dockerfile="+dir)
	c.opt("filename", name)
}

func (c *command) flag(name, value string) error {
	switch name {
	case "-f", "--file":
		c.file = value
	case "--build-arg":
		key, v, ok := strings.Cut(value, "=")
		if !ok {
			if v, ok = c.lookupEnv(key); !ok {
				return nil
			}
		}
		c.opt("build-arg:"+key, v)
	case "--label":
		key, v, _ := strings.Cut(value, "=")
		c.opt("label:"+key, v)
	case "--target":
		c.opt("target", value)
	case "--platform":
		c.opt("platform", value)
	case "--no-cache":
		c.args = append(c.args, "--no-cache")
	case "--no-cache-filter":
		c.opt("no-cache", value)
	case "--pull":
		c.opt("image-resolve-mode", "pull")
	case "--network":
		if value != "default" {
			c.opt("force-network-mode", value)
		}
		if value == "host" {
			c.args = append(c.args, "--allow", "network.host")
		}
	case "--add-host":
		host, ip, ok := strings.Cut(value, "=")
		if !ok {
			host, ip, _ = strings.Cut(value, ":")
		}
		c.hosts = append(c.hosts, host+"="+ip)
	case "--ulimit":
		c.ulimits = append(c.ulimits, value)
	case "--shm-size":
		size, err := units.RAMInBytes(value)
		if err != nil {
			return err
		}
		c.opt("shm-size", fmt.Sprint(size))
	case "--cgroup-parent":
		c.opt("cgroup-parent", value)
	case "--build-context":
		return c.context(value)
	case "--secret", "--ssh", "--allow", "--source-policy-file":
		c.args = append(c.args, name, value)
	default:
		return fmt.Errorf("flag %s has no counterpart in buildctl; put buildx on PATH", name)
	}
	return nil
}

func (c *command) lookupEnv(key string) (string, bool) {
	for _, env := range c.req.Env {
		if value, ok := strings.CutPrefix(env, key+"="); ok {
			return value, true
		}
	}
	return "", false
}

// context adds a named context. A directory or a layout needs an alias.
func (c *command) context(value string) error {
	name, source, _ := strings.Cut(value, "=")
	c.contexts++
	alias := fmt.Sprintf("named%d", c.contexts)
	if layout, ok := strings.CutPrefix(source, "oci-layout://"); ok {
		dir, err := c.layoutDigest(layout)
		if err != nil {
			return err
		}
		path, dgst, _ := strings.Cut(dir, "@")
		c.args = append(c.args, "--oci-layout", alias+"="+path)
		c.opt("context:"+name, "oci-layout://"+alias+"@"+dgst)
		return nil
	}
	if isRemote(source) {
		c.opt("context:"+name, source)
		return nil
	}
	c.args = append(c.args, "--local", alias+"="+source)
	c.opt("context:"+name, "local:"+alias)
	return nil
}

// layoutDigest returns DIR@DIGEST for a layout given as DIR[:TAG] or DIR@DIGEST.
func (c *command) layoutDigest(layout string) (string, error) {
	if strings.Contains(layout, "@") {
		return layout, nil
	}
	dir, tag, tagged := strings.Cut(layout, ":")
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(c.req.Dir, dir)
	}
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return "", err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return "", err
	}
	for _, desc := range index.Manifests {
		if !tagged || desc.Annotations[ocispec.AnnotationRefName] == tag {
			return dir + "@" + desc.Digest.String(), nil
		}
	}
	return "", fmt.Errorf("%s has no image %q", dir, tag)
}
