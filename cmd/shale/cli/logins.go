package cli

import (
	"path/filepath"

	"github.com/shale-build/shale/builder"
)

// loginFiles returns the files of this machine that contain logins, keys or secrets.
// The build may read them and its steps must not, so they are concealed while steps run
// in place. A directory represents the files in it.
func loginFiles(opts *builder.Options, authFiles []string, env func(string) string) []string {
	var paths []string
	add := func(dir string, names ...string) {
		if dir == "" {
			return
		}
		for _, name := range names {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	// Logins for registries, in the files of containers-auth.json(5), docker and
	// kaniko.
	for _, file := range authFiles {
		add(file, "")
	}
	for _, name := range []string{"REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		add(env(name), "")
	}
	add(env("DOCKER_CONFIG"), "config.json")
	add(env("XDG_RUNTIME_DIR"), "containers/auth.json")
	add("/run/containers/0", "auth.json")
	add("/kaniko/.docker", "config.json")
	add(env("KANIKO_DIR"), ".docker/config.json")
	// Logins for git repositories and clouds. HOME is often the home directory of a CI
	// job and not that of root, so both must be listed.
	configs := []string{env("XDG_CONFIG_HOME")}
	for _, home := range []string{env("HOME"), "/root"} {
		add(home, ".docker/config.json", ".dockercfg", ".netrc", ".git-credentials", ".ssh", ".aws/credentials", ".azure/msal_token_cache.json")
		if home != "" {
			configs = append(configs, filepath.Join(home, ".config"))
		}
	}
	for _, config := range configs {
		add(config, "containers/auth.json", "git/credentials", "gcloud/application_default_credentials.json", "gcloud/credentials.db")
	}
	add("/etc", "shadow", "gshadow")
	for _, s := range opts.Secrets {
		add(s.File, "")
	}
	for _, s := range opts.SSH {
		for _, p := range s.Paths {
			add(p, "")
		}
	}
	return paths
}
