package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// authFile returns the auth.json to use instead of the default files, or "" if these can
// be used. If XDG_RUNTIME_DIR is not set, the first default file is
// /run/containers/UID/auth.json. In a user namespace UID is 0, so that file belongs to
// root. The user may not read it, and every request would fail because of that.
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
		_ = f.Close() // opened for reading only
	}
	return instead(err, filepath.Join(config, "containers", "auth.json"), filepath.Join(docker, "config.json"))
}

// instead returns "" if opened, the error of opening a file, is not a permission error:
// the file is readable or does not exist. Otherwise it returns the first of others that
// exists, or others[0] if none exists.
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
