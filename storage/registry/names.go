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

// Candidates returns the complete names that a name may refer to, in the order in which
// they are tried. A complete name refers only to itself. For a short name they come from
// the aliases and the search registries in registries.conf. If it has none, the registry
// is docker.io. Candidates never asks the user: if registries.conf has
// short-name-mode="enforcing" and there are several names, it returns an error that lists
// them.
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
		// An alias is used even if there are no search registries.
		sys.PodmanOnlyShortNamesIgnoreRegistriesConfAndForceDockerHub = !hasAlias(sys, name)
	}
	disabled := types.ShortNameModeDisabled // other modes may ask on the terminal
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

// hasAlias reports whether registries.conf has an alias for name.
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

// parseName parses a complete name by docker's rules. If the name has a digest, its tag
// is dropped: the digest identifies the image already.
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
