package kaniko

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// authFile contains the fields that config.json of docker and auth.json have in common.
type authFile struct {
	Auths       map[string]json.RawMessage `json:"auths,omitempty"`
	CredHelpers map[string]string          `json:"credHelpers,omitempty"`
	CredsStore  string                     `json:"credsStore,omitempty"`
}

// add adds the logins of b for hosts that a does not contain yet.
func (a *authFile) add(b authFile) {
	if a.Auths == nil {
		a.Auths, a.CredHelpers = map[string]json.RawMessage{}, map[string]string{}
	}
	for host, auth := range b.Auths {
		_, known := a.Auths[host]
		if _, helped := a.CredHelpers[host]; !known && !helped {
			a.Auths[host] = auth
		}
	}
	for host, helper := range b.CredHelpers {
		_, known := a.Auths[host]
		if _, helped := a.CredHelpers[host]; !known && !helped {
			a.CredHelpers[host] = helper
		}
	}
	if a.CredsStore == "" {
		a.CredsStore = b.CredsStore
	}
}

func (a *authFile) has(host string) bool {
	_, auth := a.Auths[host]
	_, helper := a.CredHelpers[host]
	return auth || helper
}

// dockerConfig returns the configuration file of docker that kaniko would read.
func (c *Command) dockerConfig() string {
	const name = "config.json"
	own := filepath.Join(c.kanikoDir, ".docker", name)
	path, _ := c.env("DOCKER_CONFIG")
	if path == "" {
		if _, err := os.Stat(own); err != nil {
			if home, _ := c.env("HOME"); home != "" {
				return filepath.Join(home, ".docker", name)
			}
		}
		return own
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return own
	case info.IsDir():
		return filepath.Join(path, name)
	}
	return path
}

// authFiles returns the files that may contain logins, most important first.
func (c *Command) authFiles() []string {
	if file, _ := c.env("REGISTRY_AUTH_FILE"); file != "" {
		return []string{file}
	}
	var files []string
	if dir, _ := c.env("XDG_RUNTIME_DIR"); dir != "" {
		files = append(files, filepath.Join(dir, "containers", "auth.json"))
	} else {
		files = append(files, fmt.Sprintf("/run/containers/%d/auth.json", os.Geteuid()))
	}
	config, _ := c.env("XDG_CONFIG_HOME")
	if home, _ := c.env("HOME"); config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	if config != "" {
		files = append(files, filepath.Join(config, "containers", "auth.json"))
	}
	return append(files, c.dockerConfig())
}

// logins returns all known logins. They are from the variable that GitLab sets, from
// the files, and from the credential helpers, which are asked about hosts.
func (c *Command) logins(hosts []string) (authFile, error) {
	var all authFile
	if text, ok := c.env("DOCKER_AUTH_CONFIG"); ok && text != "" {
		var a authFile
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			// The error of json could contain a part of the secret text.
			return all, errors.New("DOCKER_AUTH_CONFIG is not the JSON of a config.json of docker")
		}
		all.add(a)
	}
	for _, file := range c.authFiles() {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return all, fmt.Errorf("read logins: %w", err)
		}
		var a authFile
		if err := json.Unmarshal(data, &a); err != nil {
			return all, fmt.Errorf("read logins in %s: %w", file, err)
		}
		all.add(a)
	}
	all.add(authFile{})
	for _, helper := range c.helpers() {
		c.ask(helper, hosts, &all)
	}
	return all, nil
}

// helpers returns the values of --credential-helpers, or the defaults if it is not
// given.
func (c *Command) helpers() []string {
	if len(c.credentialHelpers) == 0 {
		return []string{"env", "google", "ecr", "acr", "gitlab"}
	}
	return c.credentialHelpers
}

// cloud describes the credential helpers of clouds: their programs, and the hosts for
// which they have logins.
var cloud = map[string]struct {
	programs []string
	knows    func(host string) bool
}{
	"google": {[]string{"gcr", "gcloud"}, func(h string) bool {
		return h == "gcr.io" || strings.HasSuffix(h, ".gcr.io") || strings.HasSuffix(h, "-docker.pkg.dev")
	}},
	"ecr": {[]string{"ecr-login"}, func(h string) bool {
		return h == "public.ecr.aws" || strings.Contains(h, ".dkr.ecr.") || strings.Contains(h, ".dkr.ecr-fips.")
	}},
	"acr": {[]string{"acr-env"}, func(h string) bool {
		return slices.ContainsFunc([]string{".azurecr.io", ".azurecr.cn", ".azurecr.us"}, func(end string) bool { return strings.HasSuffix(h, end) })
	}},
}

// ask adds the logins of a credential helper for hosts that have no login yet.
func (c *Command) ask(helper string, hosts []string, to *authFile) {
	switch helper {
	case "":
	case "env":
		for _, host := range hosts {
			if user, password, ok := c.hostLogin(host); ok && !to.has(host) {
				to.Auths[host] = auth(user, password)
			}
		}
	case "gitlab":
		for host, login := range c.gitlab() {
			if !to.has(host) {
				to.Auths[host] = auth(login[0], login[1])
			}
		}
	case "google", "ecr", "acr":
		programs := slices.DeleteFunc(slices.Clone(cloud[helper].programs), func(name string) bool {
			_, err := exec.LookPath("docker-credential-" + name)
			return err != nil
		})
		for _, host := range hosts {
			if len(programs) > 0 && cloud[helper].knows(host) && !to.has(host) {
				to.CredHelpers[host] = programs[0]
			}
		}
	default:
		c.warn("--credential-helpers=%s has no effect: known are env, gitlab, google, ecr and acr", helper)
	}
}

// hostLogin returns the values of KANIKO_HOST_USER and KANIKO_HOST_PASSWORD. HOST is
// the name of the host or of a domain above it.
func (c *Command) hostLogin(host string) (user, password string, ok bool) {
	labels := strings.Split(strings.ToUpper(strings.ReplaceAll(host, "-", "_")), ".")
	for i := range labels {
		name := "KANIKO_" + strings.Join(labels[i:], "_")
		user, found := c.env(name + "_USER")
		if password, ok := c.env(name + "_PASSWORD"); ok && found {
			return user, password, true
		}
	}
	return "", "", false
}

// gitlab returns the logins that a job of GitLab has in its environment, by registry.
func (c *Command) gitlab() map[string][2]string {
	out := map[string][2]string{}
	get := func(name string) string { v, _ := c.env(name); return v }
	if host := get("CI_REGISTRY"); host != "" {
		switch user, password, token := get("CI_REGISTRY_USER"), get("CI_REGISTRY_PASSWORD"), get("CI_JOB_TOKEN"); {
		case user != "" && password != "":
			out[host] = [2]string{user, password}
		case token != "":
			out[host] = [2]string{"gitlab-ci-token", token}
		}
	}
	user, password := get("CI_DEPENDENCY_PROXY_USER"), get("CI_DEPENDENCY_PROXY_PASSWORD")
	if host := get("CI_DEPENDENCY_PROXY_SERVER"); host != "" && user != "" && password != "" {
		out[host] = [2]string{user, password}
	}
	return out
}

func auth(user, password string) json.RawMessage {
	data, _ := json.Marshal(map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))})
	return data
}

// inMemory writes the logins to a file in memory, so that they are never on a disk. It
// returns a path in /proc/self/fd, which is valid until release is called or the
// process ends.
func (a authFile) inMemory() (path string, release func() error, err error) {
	a.CredsStore = "" // the caller writes it to registries.conf
	// These are docker's names of its own registry.
	for _, name := range []string{dockerHubIndex, dockerHubHost} {
		if auth, ok := a.Auths[name]; ok && !a.has(dockerHub) {
			a.Auths[dockerHub] = auth
		}
	}
	data, err := json.Marshal(authFile{Auths: maps.Clone(a.Auths), CredHelpers: a.CredHelpers})
	if err != nil {
		return "", nil, fmt.Errorf("write logins: %w", err)
	}
	fd, err := unix.MemfdCreate("logins", unix.MFD_CLOEXEC)
	if err != nil {
		return "", nil, fmt.Errorf("make file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "logins")
	if _, err := f.Write(data); err != nil {
		return "", nil, errors.Join(fmt.Errorf("write logins: %w", err), f.Close())
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), f.Close, nil
}
