package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Features lists kernel features that make overlays cheaper. Overlays work without them.
type Features struct {
	// NewMountAPI is set if fsopen(2) accepts overlay.
	NewMountAPI bool
	// LowerdirPlus is set if layers can be added one at a time. Mounting then needs no
	// file descriptors for the layers and no separate thread.
	LowerdirPlus bool
}

// Cause is the reason why overlays cannot be used for steps.
type Cause string

// The causes that Probe returns.
const (
	// KernelTooOld means that the kernel cannot mount the overlays of steps. Before Linux
	// 5.11 only root may mount overlays; before Linux 5.10 there are no volatile
	// overlays.
	KernelTooOld Cause = "kernel too old"
	// NoModule means that the kernel has no overlayfs and could not load its module.
	NoModule Cause = "module not loaded"
	// FileSystem means that the file system of the layers does not support all that an
	// upper directory needs.
	FileSystem Cause = "file system"
	// SecurityModule means that this process may mount other file systems but not
	// overlays.
	SecurityModule Cause = "security module"
	// Refused means that this process may not mount at all.
	Refused Cause = "refused"
)

// UnsupportedError is returned by Probe if overlays cannot be used for steps.
type UnsupportedError struct {
	Cause Cause
	// Release is the release of the kernel from uname(2).
	Release string
	// Label is the label of this process from the security module, "" if there is none.
	Label string
	// Act is the operation that failed, for example "delete a file". Err is its error.
	Act string
	Err error
}

// Error returns the operation that failed and its error.
func (e *UnsupportedError) Error() string { return fmt.Sprintf("%s: %v", e.Act, e.Err) }

// Unwrap returns the error of the operation.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// Probe checks whether steps can run in overlays with layers in dir, and returns the
// optional features of the kernel. It mounts an overlay and does in it the operations of
// steps, because some file systems accept the mount and fail later. It removes the files
// that it creates in dir. The error wraps an UnsupportedError if overlays cannot be used.
// Other errors, for example a full disk, leave the question open. userXattr has the
// meaning of Mount.UserXattr.
func Probe(dir string, userXattr bool) (Features, error) {
	return newProbe(userXattr).run(dir)
}

// probe is one run of Probe. Tests can replace its parts.
type probe struct {
	template Mount
	ways     []strategy
	acts     []act
	// elsewhere reports whether this process can mount a tmpfs, and whether it can mount
	// an overlay on that tmpfs.
	elsewhere func(target string, m Mount) (anything, overlay bool)
	release   string
	label     string
}

func newProbe(userXattr bool) *probe {
	return &probe{
		template: Mount{UserXattr: userXattr, Volatile: true}, ways: []strategy{appendLayers, optionString},
		acts: stepActs, elsewhere: mountElsewhere, release: KernelRelease(), label: SecurityLabel(),
	}
}

func (p *probe) run(dir string) (f Features, err error) {
	if err := sweep(dir); err != nil {
		return f, fmt.Errorf("probe overlay: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, probePrefix)
	if err != nil {
		return f, fmt.Errorf("probe overlay: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := p.try(tmp); err != nil {
		if unsupported, ok := errors.AsType[*UnsupportedError](err); ok {
			unsupported.Release, unsupported.Label = p.release, p.label
		}
		return f, fmt.Errorf("probe overlay in %s: %w", dir, err)
	}
	if fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC); err == nil {
		f.NewMountAPI = true
		_ = unix.Close(fd)
	}
	f.LowerdirPlus = takesLayers() == nil
	return f, nil
}

// probePrefix begins the names of the directories of probes.
const probePrefix = "overlay-probe-"

// abandonedAfter is the age from which the directory of a probe is taken to belong to a
// killed process.
const abandonedAfter = time.Hour

// sweep removes the directories of killed processes.
func sweep(dir string) error {
	found, err := filepath.Glob(filepath.Join(dir, probePrefix+"*"))
	if err != nil {
		return err
	}
	for _, d := range found {
		if st, err := os.Lstat(d); err == nil && time.Since(st.ModTime()) > abandonedAfter {
			if err := os.RemoveAll(d); err != nil {
				return err
			}
		}
	}
	return nil
}

// try returns an UnsupportedError if overlays do not work. It returns another error if a
// lack of resources prevented the check.
func (p *probe) try(base string) (err error) {
	s, err := makeScene(base)
	if err != nil {
		return fmt.Errorf("make files: %w", err)
	}
	m := p.template
	m.Lower = []string{s.at("l2"), s.at("l1")}
	m.Upper, m.Work, m.Target = s.at("upper"), s.at("work"), s.at("merged")
	if err := m.mountWith(p.ways...); err != nil {
		if noRoom(err) {
			return err
		}
		return &UnsupportedError{Cause: p.causeOf(err, m.Target), Act: "mount an overlay", Err: err}
	}
	defer func() { err = errors.Join(err, Unmount(m.Target)) }()
	for _, a := range p.acts {
		if err := a.do(s); err != nil {
			if noRoom(err) {
				return fmt.Errorf("%s: %w", a.name, err)
			}
			return &UnsupportedError{Cause: FileSystem, Act: a.name, Err: err}
		}
	}
	return nil
}

// noRoom reports whether err is a lack of resources, which is unrelated to overlays.
func noRoom(err error) bool {
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.ENOMEM, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// causeOf returns the reason why mounting an overlay at target failed with err.
func (p *probe) causeOf(err error, target string) Cause {
	old := older(p.release, 5, 10)
	if p.template.UserXattr {
		old = older(p.release, 5, 11)
	}
	switch {
	case errors.Is(err, unix.ENODEV):
		return NoModule
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		// An NFS server may also return these errors if overlayfs creates files on it.
		anything, works := p.elsewhere(target, p.template)
		switch {
		case !anything:
			return Refused
		case works:
			return FileSystem
		case old:
			return KernelTooOld
		}
		return SecurityModule
	case old:
		return KernelTooOld
	}
	return FileSystem
}

// mountElsewhere mounts a tmpfs on target, which every kernel allows to root of a user
// namespace. It then mounts a read-only overlay of two of its directories.
func mountElsewhere(target string, m Mount) (anything, works bool) {
	if unix.Mount("tmpfs", target, "tmpfs", 0, "size=64k") != nil {
		return false, false
	}
	defer func() { _ = unix.Unmount(target, unix.MNT_DETACH) }()
	m.Lower, m.Target = []string{filepath.Join(target, "l1"), filepath.Join(target, "l2")}, filepath.Join(target, "merged")
	for _, dir := range append(m.Lower, m.Target) {
		if os.Mkdir(dir, 0o700) != nil {
			return true, false
		}
	}
	if m.Mount() != nil {
		return true, false
	}
	return true, Unmount(m.Target) == nil
}

// KernelRelease returns the release of the kernel from uname(2), "" on an error.
func KernelRelease() string {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return ""
	}
	return unix.ByteSliceToString(uts.Release[:])
}

// older reports whether a kernel release is before a version. It returns false if the
// release cannot be parsed.
func older(release string, major, minor int) bool {
	var have [2]int
	if _, err := fmt.Sscanf(release, "%d.%d", &have[0], &have[1]); err != nil {
		return false
	}
	return have[0] < major || have[0] == major && have[1] < minor
}

// SecurityLabel returns the label of this process from the security module
// (proc_pid_attr(5)). It returns "" if there is no security module with labels.
func SecurityLabel() string {
	text, err := os.ReadFile("/proc/thread-self/attr/current")
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(text), "\x00\n")
}

// scene holds the directories of a probe.
type scene struct {
	base string
	// xattr is the value of the largest extended attribute that the file system itself
	// stores, nil if it stores none.
	xattr []byte
}

func (s *scene) at(name string) string { return filepath.Join(s.base, name) }

// merged returns a path in the overlay.
func (s *scene) merged(name string) string { return filepath.Join(s.base, "merged", name) }

// xattrName is the name of the extended attribute that a probe sets.
const xattrName = "user.shale.probe"

// xattrSizes are tried in order: the kernel's limit, a size that fits into ext4 with 4
// KiB blocks, and a small size.
var xattrSizes = []int{64 << 10, 3 << 10, 64}

// makeScene creates two lower directories with files like those of layers.
func makeScene(base string) (*scene, error) {
	s := &scene{base: base}
	for _, d := range []string{"l1/d/e", "l1/moved", "l2/d", "upper", "work", "merged"} {
		if err := os.MkdirAll(s.at(d), 0o700); err != nil {
			return nil, err
		}
	}
	for _, f := range []string{"l1/d/e/f", "l1/gone", "l1/renamed", "l1/linked", "l1/attr", "l2/d/f"} {
		if err := os.WriteFile(s.at(f), []byte("x"), 0o600); err != nil {
			return nil, err
		}
	}
	for _, size := range xattrSizes {
		value := []byte(strings.Repeat("x", size))
		if unix.Lsetxattr(s.at("l1/attr"), xattrName, value, 0) == nil {
			s.xattr = value
			break
		}
	}
	return s, nil
}
