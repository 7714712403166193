package cdi

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

// Annotations that BuildKit defines.
const (
	classAnnotation     = "org.mobyproject.buildkit.device.class"
	autoAllowAnnotation = "org.mobyproject.buildkit.device.autoallow"
)

// Dirs returns the directories of device descriptions: those of docker and BuildKit, then
// those of the user, which take precedence.
func Dirs(env func(string) (string, bool)) []string {
	dirs := []string{"/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"}
	if base, _ := env("XDG_CONFIG_HOME"); base != "" {
		dirs = append(dirs, filepath.Join(base, "cdi"))
	} else if home, _ := env("HOME"); home != "" {
		dirs = append(dirs, filepath.Join(home, ".config", "cdi"))
	}
	if base, _ := env("XDG_RUNTIME_DIR"); base != "" {
		dirs = append(dirs, filepath.Join(base, "cdi"))
	}
	return dirs
}

// Registry holds the devices described in a list of directories.
type Registry struct {
	cache *cdi.Cache
	names []string
}

// Open reads the directories. A later directory takes precedence over an earlier one, and
// a missing directory counts as empty. If a description file cannot be read, only its own
// devices are missing; Faults returns the error.
func Open(dirs []string) (*Registry, error) {
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return nil, fmt.Errorf("read device descriptions: %w", err)
	}
	return &Registry{cache: cache, names: cache.ListDevices()}, nil
}

// Faults returns the errors of the description files that could not be read.
func (r *Registry) Faults() error {
	var errs []error
	for _, path := range slices.Sorted(maps.Keys(r.cache.GetErrors())) {
		for _, err := range r.cache.GetErrors()[path] {
			if !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("%s: %w", path, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Find returns the complete names of the devices that name refers to. These are the
// device itself, all devices of a kind (vendor/class=*), the first device of a kind
// (vendor/class), or the devices that BuildKit's annotation assigns to a class called
// name.
func (r *Registry) Find(name string) []string {
	kind, device, _ := strings.Cut(name, "=")
	var out []string
	if vendor, _ := parser.ParseQualifier(kind); vendor != "" {
		for _, d := range r.names {
			if d == name || strings.HasPrefix(d, kind+"=") && (device == "*" || device == "" && len(out) == 0) {
				out = append(out, d)
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, d := range r.names {
		if r.annotation(d, classAnnotation) == name {
			out = append(out, d)
		}
	}
	return out
}

// AutoAllowed reports whether the description of the device permits every build to use
// it.
func (r *Registry) AutoAllowed(name string) bool {
	allowed, err := strconv.ParseBool(r.annotation(name, autoAllowAnnotation))
	return err == nil && allowed
}

// annotation returns an annotation of a device. If the device does not have it,
// annotation returns that of the description file.
func (r *Registry) annotation(name, key string) string {
	d := r.cache.GetDevice(name)
	if d == nil {
		return ""
	}
	if v, ok := d.Annotations[key]; ok {
		return v
	}
	return d.GetSpec().Annotations[key]
}
