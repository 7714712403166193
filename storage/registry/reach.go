package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
)

// Configured returns the hosts of the registries and mirrors in registries.conf, see
// containers-registries.conf(5), sorted and without duplicates. It omits blocked
// registries and wildcards.
func (c *Client) Configured() ([]string, error) {
	registries, err := sysregistriesv2.GetRegistries(c.system())
	if err != nil {
		return nil, fmt.Errorf("read registries.conf: %w", err)
	}
	var hosts []string
	add := func(location string) {
		host, _, _ := strings.Cut(location, "/")
		// The hosts that match a wildcard are not known.
		if host != "" && !strings.HasPrefix(host, "*.") {
			hosts = append(hosts, host)
		}
	}
	for _, r := range registries {
		if r.Blocked {
			continue
		}
		add(r.Location)
		for _, m := range r.Mirrors {
			add(m.Location)
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), nil
}

// Reach sends a request to the registry at host, as a pull would, and returns an error if
// there is no such registry. A registry that requires a login is reachable. The error
// wraps ErrPlainHTTP if the registry does not support TLS although c requires it.
func (c *Client) Reach(ctx context.Context, host string) error {
	err := docker.CheckAuth(ctx, c.system(), "", "", host)
	switch {
	case err == nil || isUnauthorized(err, err.Error()):
		return nil
	case isPlainHTTP(err.Error()):
		return fmt.Errorf("%s %w", host, ErrPlainHTTP)
	}
	return err
}

// ErrPlainHTTP is wrapped by the error of Reach if a registry does not support TLS.
var ErrPlainHTTP = errors.New("speaks plain HTTP")

func isPlainHTTP(text string) bool {
	return containsAny(text, "server gave HTTP response to HTTPS client", "first record does not look like a TLS handshake")
}
