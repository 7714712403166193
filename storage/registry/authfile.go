package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// authFile returns the file of logins to use in place of the default ones, ""
// for those. Without a runtime directory the first of them is that of the user
// id in /run/containers; in a user namespace this is root's, which the user may
// not read, and which would end every request there.
func authFile() string {
	if os.Getenv("XDG_RUNTIME_DIR") != "" {
		return ""
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	docker := os.Getenv("DOCKER_CONFIG")
	if docker == "" {
		docker = filepath.Join(os.Getenv("HOME"), ".docker")
	}
	f, err := os.Open(fmt.Sprintf("/run/containers/%d/auth.json", os.Geteuid()))
	if err == nil {
		_ = f.Close() // read only
	}
	return instead(err, filepath.Join(config, "containers", "auth.json"), filepath.Join(docker, "config.json"))
}

// instead returns the first of others that exists, or else the first, when
// the file that was opened with this error is not to be read, and "" when it
// is, or is not there.
func instead(opened error, others ...string) string {
	if !errors.Is(opened, fs.ErrPermission) {
		return ""
	}
	for _, other := range others {
		if _, err := os.Stat(other); err == nil {
			return other
		}
	}
	return others[0]
}
