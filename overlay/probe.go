package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Features say what this process can mount here and now.
type Features struct {
	// NewMountAPI: fsopen(2) answers for overlay.
	NewMountAPI bool
	// LowerdirPlus: layers can be added one by one, so that mounting needs no
	// descriptors and no thread of its own.
	LowerdirPlus bool
	// UserXattr: a writable overlay with marks in user.overlay.* works,
	// replaced directories included.
	UserXattr bool
	// TrustedXattr: the same with trusted.overlay.*, as for real root.
	TrustedXattr bool
	// Volatile: overlays can be mounted without syncs.
	Volatile bool
}

// Probe makes real overlays in a temporary directory inside dir, which should
// lie where the layers will be, and removes them again. It returns an error if
// no writable overlay can be had at all; the error says what each attempt
// met.
func Probe(dir string) (f Features, err error) {
	tmp, err := os.MkdirTemp(dir, "overlay-probe-")
	if err != nil {
		return Features{}, fmt.Errorf("probe overlay: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC); err == nil {
		f.NewMountAPI = true
		_ = unix.Close(fd)
	}
	userErr := trial(filepath.Join(tmp, "user"), Mount{UserXattr: true}, appendLayers, optionString)
	f.UserXattr = userErr == nil
	trustedErr := trial(filepath.Join(tmp, "trusted"), Mount{}, appendLayers, optionString)
	f.TrustedXattr = trustedErr == nil
	if !f.UserXattr && !f.TrustedXattr {
		return f, fmt.Errorf("probe overlay in %s: with user xattrs: %w; with trusted xattrs: %w", dir, userErr, trustedErr)
	}
	m := Mount{UserXattr: f.UserXattr}
	f.LowerdirPlus = trial(filepath.Join(tmp, "append"), m, appendLayers) == nil
	m.Volatile = true
	f.Volatile = trial(filepath.Join(tmp, "volatile"), m, appendLayers, optionString) == nil
	return f, nil
}

// trial mounts m over two lower directories made below base and replaces a
// directory in it: that needs whiteouts and xattrs to work on the upper file
// system, which mounting alone does not show.
func trial(base string, m Mount, ways ...strategy) (err error) {
	sub := func(name string) string { return filepath.Join(base, name) }
	for _, d := range []string{"l1/d/e", "l2/d", "upper", "work", "merged"} {
		if err := os.MkdirAll(sub(d), 0o700); err != nil {
			return err
		}
	}
	m.Lower = []string{sub("l2"), sub("l1")}
	m.Upper, m.Work, m.Target = sub("upper"), sub("work"), sub("merged")
	if err := m.mountWith(ways...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, Unmount(m.Target)) }()
	replaced := sub("merged/d")
	if err := os.RemoveAll(replaced); err != nil {
		return err
	}
	if err := os.Mkdir(replaced, 0o700); err != nil {
		return err
	}
	left, err := os.ReadDir(replaced)
	if err != nil {
		return err
	}
	if len(left) != 0 {
		return fmt.Errorf("replaced directory %s shows what was deleted", replaced)
	}
	return nil
}
