package kaniko

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"github.com/shale-build/shale/storage/registry"
)

// dockerHub is docker.io. kaniko and the registry protocol use the other names for it.
const (
	dockerHub      = "docker.io"
	dockerHubIndex = "index.docker.io"
	dockerHubHost  = "registry-1.docker.io"
)

// registries is the configuration of registries that the command line adds to
// registries.conf and certs.d.
type registries struct {
	// insecure is the set of registries that may use plain HTTP or a certificate that
	// is not verified.
	insecure map[string]bool
	// maps lists the locations from which the images of a registry are pulled, in
	// order.
	maps map[string][]string
	// own are the repositories to which the build pushes. They must not be pulled from
	// mirrors, which do not have their images.
	own []string
	// skipFallback is set if the registry itself must not be asked after its mirrors.
	skipFallback bool
	// helpers are asked for logins that are not in a file.
	helpers []string
}

func (c *Command) registries() (registries, error) {
	r := registries{insecure: map[string]bool{}, maps: map[string][]string{}, skipFallback: c.skipFallback}
	for _, host := range slices.Concat(c.insecureRegistries, c.skipVerifyRegistries) {
		r.insecure[canonical(host)] = true
	}
	for _, name := range append(slices.Clone(c.destinations), c.cacheName()) {
		if name == "" {
			continue
		}
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return r, fmt.Errorf("invalid image name %q: %w", name, err)
		}
		r.own = append(r.own, named.Name())
		if c.insecure || c.skipVerify {
			r.insecure[reference.Domain(named)] = true
		}
	}
	for _, value := range c.maps {
		for pair := range strings.SplitSeq(value, ";") {
			from, to, found := strings.Cut(pair, "=")
			if pair == "" {
				continue
			}
			if !found || from == "" || to == "" {
				return r, fmt.Errorf("invalid --registry-map %q: want REGISTRY=OTHER[;REGISTRY=OTHER]", value)
			}
			from = canonical(from)
			r.maps[from] = append(r.maps[from], strings.TrimRight(to, "/"))
		}
	}
	for _, to := range c.mirrors {
		r.maps[dockerHub] = append(r.maps[dockerHub], strings.TrimRight(to, "/"))
	}
	for _, host := range slices.Concat(r.hosts(), c.baseHosts()) {
		if isLocal(host) {
			r.insecure[host] = true
		}
	}
	return r, nil
}

// isLocal reports whether kaniko uses plain HTTP for a registry even if no flag
// requests it. This applies to registries on this machine, in .local, or with an
// address of a private network.
func isLocal(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ip.IsPrivate() && ip.Is4() || ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || ip == netip.IPv6Loopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".local") || strings.HasSuffix(host, ".localhost")
}

// canonical returns the name of a registry by docker's rules.
func canonical(host string) string {
	if host == dockerHubIndex || host == dockerHubHost {
		return dockerHub
	}
	return host
}

// hosts returns the names of all registries in r, sorted.
func (r registries) hosts() []string {
	set := maps.Clone(r.insecure)
	for from, list := range r.maps {
		set[from] = true
		for _, to := range list {
			set[hostOf(to)] = true
		}
	}
	for _, name := range r.own {
		set[hostOf(name)] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func hostOf(location string) string {
	host, _, _ := strings.Cut(location, "/")
	return host
}

// conf returns the content of a registries.conf(5) file, or "" if r has no settings.
func (r registries) conf() string {
	var text strings.Builder
	if len(r.helpers) > 0 {
		text.WriteString("credential-helpers = [\"containers-auth.json\"")
		for _, h := range r.helpers {
			fmt.Fprintf(&text, ", %q", h)
		}
		text.WriteString("]\n")
	}
	entry := func(kind, prefix, location string) {
		fmt.Fprintf(&text, "\n[[%s]]\n", kind)
		if prefix != "" {
			fmt.Fprintf(&text, "prefix = %q\n", prefix)
		}
		fmt.Fprintf(&text, "location = %q\ninsecure = %t\n", location, r.insecure[canonical(hostOf(location))])
	}
	for _, from := range slices.Sorted(maps.Keys(r.maps)) {
		mirrors, location := r.maps[from], from
		if r.skipFallback {
			location, mirrors = mirrors[len(mirrors)-1], mirrors[:len(mirrors)-1]
		}
		entry("registry", from, location)
		for _, to := range mirrors {
			entry("registry.mirror", "", to)
		}
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(r.own))) {
		if len(r.maps[hostOf(name)]) > 0 {
			entry("registry", name, name)
		}
	}
	for _, host := range slices.Sorted(maps.Keys(r.insecure)) {
		if len(r.maps[host]) == 0 {
			entry("registry", "", host)
		}
	}
	return text.String()
}

// places returns the directories of a machine for registries.conf.d or certs.d, least
// important first. They may not exist.
func places(env LookupEnv, name string) []string {
	dirs := []string{"/usr/share/containers/" + name, "/etc/docker/" + name, "/etc/containers/" + name}
	config, _ := env("XDG_CONFIG_HOME")
	if home, _ := env("HOME"); config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	if config != "" {
		dirs = append(dirs, filepath.Join(config, "containers", name))
	}
	return dirs
}

// linkAll creates symbolic links in dir to the entries of places. If two entries have
// the same name, the link points to the one in the more important place.
func linkAll(dir string, places []string) error {
	for _, place := range places {
		entries, err := os.ReadDir(place)
		if err != nil {
			continue // most places do not exist
		}
		for _, e := range entries {
			to := filepath.Join(dir, e.Name())
			if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := os.Symlink(filepath.Join(place, e.Name()), to); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeConf writes the settings of r to a directory below dir, which also contains
// links to the registries.conf.d files of the machine. It sets the directory in opts.
// If r has no settings, writeConf changes no option.
func (r registries) writeConf(dir string, env LookupEnv, opts *registry.Options) error {
	text := r.conf()
	if text == "" {
		return nil
	}
	dropIns := filepath.Join(dir, "registries.conf.d")
	if err := os.Mkdir(dropIns, 0o700); err != nil {
		return err
	}
	if err := linkAll(dropIns, places(env, "registries.conf.d")); err != nil {
		return err
	}
	opts.RegistriesConfDir = dropIns
	// The file name sorts last, so its settings take precedence.
	return os.WriteFile(filepath.Join(dropIns, "zzzz-kaniko.conf"), []byte(text), 0o600)
}

// writeCerts creates a certs.d directory below dir, and sets it in opts. It contains
// the files of --registry-certificate and --registry-client-cert, and links to the
// certificates of the machine. Without these flags, writeCerts changes no option.
func (c *Command) writeCerts(dir string, opts *registry.Options) error {
	if len(c.certificates)+len(c.clientCertificates) == 0 {
		return nil
	}
	certs := filepath.Join(dir, "certs.d")
	if err := os.Mkdir(certs, 0o700); err != nil {
		return err
	}
	opts.HostCertDir = certs
	files := map[string]map[string]string{} // host → name → file
	add := func(host, name, file string) error {
		abs, err := filepath.Abs(file)
		if err == nil {
			_, err = os.Stat(abs)
		}
		if host = canonical(host); host == dockerHub {
			host = dockerHubHost
		}
		if files[host] == nil {
			files[host] = map[string]string{}
		}
		files[host][name] = abs
		return err
	}
	for _, value := range c.certificates {
		host, file, found := strings.Cut(value, "=")
		if !found {
			return fmt.Errorf("invalid --registry-certificate %q: want REGISTRY=FILE", value)
		}
		if err := add(host, "ca.crt", file); err != nil {
			return fmt.Errorf("--registry-certificate of %s: %w", host, err)
		}
	}
	for _, value := range c.clientCertificates {
		host, pair, _ := strings.Cut(value, "=")
		cert, key, found := strings.Cut(pair, ",")
		if !found {
			return fmt.Errorf("invalid --registry-client-cert %q: want REGISTRY=CERTIFICATE,KEY", value)
		}
		if err := errors.Join(add(host, "client.cert", cert), add(host, "client.key", key)); err != nil {
			return fmt.Errorf("--registry-client-cert of %s: %w", host, err)
		}
	}
	if err := linkAll(certs, places(c.env, "certs.d")); err != nil {
		return err
	}
	for host, named := range files {
		if err := linkCerts(filepath.Join(certs, host), named); err != nil {
			return err
		}
	}
	return nil
}

// linkCerts creates the directory of one registry. It contains links to files, by name,
// and to the certificates that the machine has for this registry.
func linkCerts(dir string, files map[string]string) error {
	before, err := os.Readlink(dir)
	if err == nil {
		err = os.Remove(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if before != "" {
		if err := linkAll(dir, []string{before}); err != nil {
			return err
		}
	}
	for name, file := range files {
		to := filepath.Join(dir, name)
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(file, to); err != nil {
			return err
		}
	}
	return nil
}
