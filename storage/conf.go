package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.podman.io/storage/pkg/configfile"
	"go.podman.io/storage/pkg/unshare"
	"go.podman.io/storage/types"
)

// noSystemFiles is a root directory that has no configuration files. With it, only the
// user's own files have an effect.
const noSystemFiles = "/proc/self/fdinfo/none"

// storeOptions reads storage.conf as podman does; opts take precedence over it. It
// returns ErrDriver if another driver than overlay is configured.
func storeOptions(opts Options) (types.StoreOptions, error) {
	so, err := types.LoadStoreOptions(types.LoadOptions{})
	if err != nil {
		return so, fmt.Errorf("load: %w", err)
	}
	if err := keepToUser(&so); err != nil {
		return so, err
	}
	if err := override(&so.GraphRoot, opts.GraphRoot); err != nil {
		return so, err
	}
	if err := override(&so.RunRoot, opts.RunRoot); err != nil {
		return so, err
	}
	if opts.GraphRoot != "" {
		// The image store of storage.conf belongs to the graph root of storage.conf.
		so.ImageStore = ""
	}
	if so.GraphDriverName == "" {
		so.GraphDriverName = driverName
	}
	if so.GraphDriverName != driverName {
		return so, fmt.Errorf("%w but %q: set driver = \"overlay\" in storage.conf or unset STORAGE_DRIVER", ErrDriver, so.GraphDriverName)
	}
	if so.PullOptions == nil {
		// The library writes into the map.
		so.PullOptions = map[string]string{}
	}
	return so, nil
}

func override(root *string, with string) error {
	if with == "" {
		return nil
	}
	abs, err := filepath.Abs(with)
	if err != nil {
		return fmt.Errorf("find %s: %w", with, err)
	}
	*root = abs
	return nil
}

// keepToUser drops the graph root and the run root of the system's storage.conf if the
// user is unprivileged. Distributions ship a storage.conf that names /var/lib/containers,
// and podman up to version 5 reads it for everything except these directories.
func keepToUser(so *types.StoreOptions) error {
	if !unshare.IsRootless() || unshare.GetRootlessUID() == 0 || os.Getenv("CONTAINERS_STORAGE_CONF") != "" {
		return nil
	}
	user, err := types.LoadStoreOptions(types.LoadOptions{RootForImplicitAbsolutePaths: noSystemFiles})
	if err != nil {
		return fmt.Errorf("load the user's own: %w", err)
	}
	if user.RunRoot != so.RunRoot {
		so.RunRoot = user.RunRoot
	}
	if user.GraphRoot == so.GraphRoot {
		return nil
	}
	so.GraphRoot = user.GraphRoot
	shared, err := sharedRootlessPath()
	if err != nil || shared == "" {
		return err
	}
	if own, err := userNamesGraphRoot(); err != nil || own {
		return err
	}
	so.GraphRoot = shared
	return nil
}

// sharedRootlessPath returns the directory for the stores of all users in the system's
// storage.conf (rootless_storage_path), "" if it names none.
func sharedRootlessPath() (string, error) {
	conf, err := parseConf("")
	if err != nil || conf.Storage.RootlessStoragePath == "" {
		return "", err
	}
	path := strings.ReplaceAll(conf.Storage.RootlessStoragePath, "$UID", strconv.Itoa(unshare.GetRootlessUID()))
	return filepath.Clean(os.ExpandEnv(path)), nil
}

func userNamesGraphRoot() (bool, error) {
	conf, err := parseConf(noSystemFiles)
	if err != nil {
		return false, err
	}
	return conf.Storage.GraphRoot != "" || conf.Storage.RootlessStoragePath != "", nil
}

func parseConf(root string) (*types.TomlConfig, error) {
	conf := new(types.TomlConfig)
	err := configfile.ParseTOML(conf, &configfile.File{
		Name: "storage", Extension: "conf", EnvironmentName: "CONTAINERS_STORAGE_CONF",
		UserId: unshare.GetRootlessUID(), RootForImplicitAbsolutePaths: root,
	})
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	return conf, nil
}
