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

// Features are what makes overlays cheaper, but is not needed.
type Features struct {
	// NewMountAPI: fsopen(2) answers for overlay.
	NewMountAPI bool
	// LowerdirPlus: layers can be added one by one, so that mounting needs no
	// descriptors and no thread of its own.
	LowerdirPlus bool
}

// Cause is why overlays cannot be used for steps.
type Cause string

// The causes that Probe tells apart.
const (
	// KernelTooOld: only root mounts overlays, before Linux 5.11; or they have
	// no volatile ones, before Linux 5.10.
	KernelTooOld Cause = "kernel too old"
	// NoModule: the kernel has no overlayfs, and could not load its module.
	NoModule Cause = "module not loaded"
	// FileSystem: what an upper directory has to hold is not to be had where
	// the layers are.
	FileSystem Cause = "file system"
	// SecurityModule: this process may mount, but no overlay.
	SecurityModule Cause = "security module"
	// Refused: this process may not mount.
	Refused Cause = "refused"
)

// UnsupportedError is returned by Probe where overlays cannot be used for steps.
type UnsupportedError struct {
	Cause Cause
	// Release is that of the kernel, as uname(2) has it.
	Release string
	// Label is what the security module has for this process, "" for none.
	Label string
	// Act is what was tried, such as "delete a file"; Err is the answer.
	Act string
	Err error
}

// Error says what was tried and what the answer was.
func (e *UnsupportedError) Error() string { return fmt.Sprintf("%s: %v", e.Act, e.Err) }

// Unwrap returns the answer.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// Probe finds out whether steps can run in overlays whose layers are in dir. It
// mounts one and does in it what steps do, since some file systems allow the
// mount and fail later. What it makes below dir is removed again. The error wraps
// an UnsupportedError if overlays cannot be used. For userXattr see Mount.
func Probe(dir string, userXattr bool) (Features, error) {
	return newProbe(userXattr).run(dir)
}

// probe is one trial. Its parts can be replaced by tests.
type probe struct {
	template Mount
	ways     []strategy
	acts     []act
	// elsewhere reports what this process can mount where no file system is in
	// the way.
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

// probePrefix begins the names of the directories of trials.
const probePrefix = "overlay-probe-"

// abandonedAfter is how old the directory of a trial is whose process was killed.
const abandonedAfter = time.Hour

// sweep removes what killed processes left.
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

// try returns an UnsupportedError where an overlay does not work, and another
// error where there was no room to find out.
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

// noRoom reports whether an error says nothing of overlays.
func noRoom(err error) bool {
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.ENOMEM, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// causeOf tells why an overlay could not be mounted.
func (p *probe) causeOf(err error, target string) Cause {
	old := older(p.release, 5, 10)
	if p.template.UserXattr {
		old = older(p.release, 5, 11)
	}
	switch {
	case errors.Is(err, unix.ENODEV):
		return NoModule
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		// A server's answer, too, to what an overlay makes on NFS.
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

// mountElsewhere mounts a tmpfs, as every kernel lets root of a user namespace,
// and an overlay that is only read over two directories of it.
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

// KernelRelease is the kernel's, as uname(2) has it.
func KernelRelease() string {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return ""
	}
	return unix.ByteSliceToString(uts.Release[:])
}

// older reports whether a kernel release is before a version. One that cannot be
// read is not.
func older(release string, major, minor int) bool {
	var have [2]int
	if _, err := fmt.Sscanf(release, "%d.%d", &have[0], &have[1]); err != nil {
		return false
	}
	return have[0] < major || have[0] == major && have[1] < minor
}

// SecurityLabel is the label of this process, "" without a security module that
// has labels (proc_pid_attr(5)).
func SecurityLabel() string {
	text, err := os.ReadFile("/proc/thread-self/attr/current")
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(text), "\x00\n")
}

// scene are the directories of a trial.
type scene struct {
	base string
	// xattr is the largest attribute that the file system itself holds, nil if
	// it holds none.
	xattr []byte
}

func (s *scene) at(name string) string { return filepath.Join(s.base, name) }

// merged is a path in the overlay.
func (s *scene) merged(name string) string { return filepath.Join(s.base, "merged", name) }

// xattrName is that of the attribute of the trial.
const xattrName = "user.shale.probe"

// xattrSizes are tried from the first on: what the kernel allows, what ext4, with
// blocks of 4 KiB, has room for, and a small one.
var xattrSizes = []int{64 << 10, 3 << 10, 64}

// makeScene makes two lower directories with files as layers have them.
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
