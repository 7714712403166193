package registry

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	imgref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/shortnames"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
)

// Candidates returns the complete names that a name may stand for, in the order
// they are tried: what registries.conf says about aliases and about registries to
// search, docker.io where it says nothing. A complete name stands for itself.
// Nobody is ever asked: where registries.conf enforces a choice and there is more
// than one, the error lists them.
func (c *Client) Candidates(name string) ([]string, error) {
	if named, err := reference.ParseNormalizedNamed(name); err != nil {
		return nil, fmt.Errorf("image name %q: %w", name, err)
	} else if !shortnames.IsShortName(name) {
		return []string{reference.TagNameOnly(named).String()}, nil
	}
	sys := c.system()
	mode, err := sysregistriesv2.GetShortNameMode(sys)
	if err != nil {
		return nil, fmt.Errorf("read registries.conf: %w", err)
	}
	search, err := sysregistriesv2.UnqualifiedSearchRegistries(sys)
	if err != nil {
		return nil, fmt.Errorf("read registries.conf: %w", err)
	}
	if len(search) == 0 {
		// Aliases count all the same.
		sys.PodmanOnlyShortNamesIgnoreRegistriesConfAndForceDockerHub = !hasAlias(sys, name)
	}
	disabled := types.ShortNameModeDisabled // any other mode may ask on the terminal
	sys.ShortNameMode = &disabled
	resolved, err := shortnames.Resolve(sys, name)
	if err != nil {
		return nil, fmt.Errorf("short name %q: %w", name, err)
	}
	var names []string
	for _, candidate := range resolved.PullCandidates {
		names = append(names, imgref.TagNameOnly(candidate.Value).String())
	}
	if mode == types.ShortNameModeEnforcing && len(names) > 1 {
		return nil, fmt.Errorf("short name %q may mean any of %s: use a complete name, as registries.conf has short-name-mode=\"enforcing\"",
			name, strings.Join(names, ", "))
	}
	return names, nil
}

func hasAlias(sys *types.SystemContext, name string) bool {
	named, err := imgref.Parse(name)
	if err != nil {
		return false
	}
	short, ok := named.(imgref.Named)
	if !ok {
		return false
	}
	alias, _, err := sysregistriesv2.ResolveShortNameAlias(sys, imgref.TrimNamed(short).String())
	return err == nil && alias != nil
}

// parseName reads a complete name by docker's rules. A tag beside a digest says
// nothing more and is dropped.
func parseName(name string) (imgref.Named, error) {
	named, err := imgref.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fmt.Errorf("image name %q: %w", name, err)
	}
	if digested, ok := named.(imgref.Digested); ok {
		pinned, err := imgref.WithDigest(imgref.TrimNamed(named), digested.Digest())
		if err != nil {
			return nil, fmt.Errorf("image name %q: %w", name, err)
		}
		return pinned, nil
	}
	return imgref.TagNameOnly(named), nil
}
