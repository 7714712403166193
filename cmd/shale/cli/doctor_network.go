package cli

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/shale-build/shale/internal/redact"
	"github.com/shale-build/shale/runtime/probe"
	"github.com/shale-build/shale/storage/registry"
)

// networkPatience is the time in which a proxy or a registry must answer.
const networkPatience = 5 * time.Second

// networkResults connects to the proxies of the environment and to the registries that
// registries.conf names. There is no result if none is configured. A failure does not
// mean that builds fail, because a build may not need the network.
func networkResults(ctx context.Context, client *registry.Client, env lookupEnv) []probe.Result {
	ctx, cancel := context.WithTimeout(ctx, networkPatience)
	defer cancel()
	results := proxyResults(ctx, env)
	hosts, err := client.Configured()
	if err != nil {
		return append(results, probe.Result{
			Name: "registries", Status: probe.Degraded, Detail: oneLine(err), Fix: "correct the file: images with a registry's name cannot be pulled",
		})
	}
	return append(results, each(hosts, func(host string) probe.Result { return registryResult(host, client.Reach(ctx, host)) })...)
}

// each calls result for all names at the same time and returns the results in the order
// of the names.
func each(names []string, result func(string) probe.Result) []probe.Result {
	results := make([]probe.Result, len(names))
	var wait sync.WaitGroup
	for i, name := range names {
		wait.Go(func() { results[i] = result(name) })
	}
	wait.Wait()
	return results
}

func registryResult(host string, err error) probe.Result {
	r := probe.Result{Name: "registry", Status: probe.OK, Detail: host}
	if err == nil {
		return r
	}
	r.Status = probe.Degraded
	if errors.Is(err, registry.ErrPlainHTTP) {
		r.Detail = oneLine(err)
		r.Fix = "put insecure = true under the [[registry]] or [[registry.mirror]] of " + host + " in registries.conf, or use --tls-verify=false"
		return r
	}
	r.Detail = host + " cannot be reached: " + oneLine(err)
	return r
}

// proxyResults connects to the proxies that shale uses for registries, git servers and
// downloads; see net/http.ProxyFromEnvironment.
func proxyResults(ctx context.Context, env lookupEnv) []probe.Result {
	var names []string
	seen := map[string]bool{}
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"} {
		if value, ok := env(name); ok && value != "" && !seen[value] {
			seen[value] = true
			names = append(names, name)
		}
	}
	return each(names, func(name string) probe.Result {
		value, _ := env(name)
		r := probe.Result{Name: "proxy", Status: probe.OK, Detail: redact.URLs(value)}
		if err := dialProxy(ctx, value); err != nil {
			r.Status = probe.Degraded
			r.Detail += " cannot be reached: " + redact.URLs(oneLine(err))
			r.Fix = "correct or unset " + name
		}
		return r
	})
}

// proxyPorts maps the scheme of a proxy's address to the default port.
var proxyPorts = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

func dialProxy(ctx context.Context, address string) error {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	port := u.Port()
	if port == "" {
		port = proxyPorts[u.Scheme]
	}
	if u.Hostname() == "" || port == "" {
		return errors.New("it is not the address of a proxy")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return err
	}
	return conn.Close()
}
