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

// Configured lists the hosts of the registries and mirrors that registries.conf names,
// see containers-registries.conf(5).
func (c *Client) Configured() ([]string, error) {
	registries, err := sysregistriesv2.GetRegistries(c.system())
	if err != nil {
		return nil, fmt.Errorf("read registries.conf: %w", err)
	}
	var hosts []string
	add := func(location string) {
		host, _, _ := strings.Cut(location, "/")
		// A wildcard stands for hosts that are not known.
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

// Reach asks the registry at host whether it is there, in the way that a pull would.
// A registry that asks for a login is. ErrPlainHTTP is wrapped for one that has no TLS
// though it ought to.
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

// ErrPlainHTTP says that a registry has no TLS.
var ErrPlainHTTP = errors.New("speaks plain HTTP")

func isPlainHTTP(text string) bool {
	return containsAny(text, "server gave HTTP response to HTTPS client", "first record does not look like a TLS handshake")
}
