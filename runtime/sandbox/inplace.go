package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/confine"
	"github.com/shale-build/shale/runtime/inplace"
)

// InPlace runs commands without namespaces, in the root directory of the container that
// the process runs in. Mounts are replaced by copies or symbolic links while the command
// runs. The caller must have put the root file system in place and must run only one
// command at a time.
type InPlace struct {
	log *slog.Logger
	// copy copies the file or directory src to dst. dst must not exist, and the copy must
	// not share hard links with src.
	copy func(ctx context.Context, src, dst string) error
}

// NewInPlace returns an InPlace that copies with the given function. log may be nil.
func NewInPlace(log *slog.Logger, copy func(ctx context.Context, src, dst string) error) *InPlace {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &InPlace{log: log, copy: copy}
}

// NotInPlaceError is returned if a step needs namespaces or mounts, which an InPlace does
// not have. What names the unsupported feature.
type NotInPlaceError struct{ What string }

func (e *NotInPlaceError) Error() string {
	return e.What + " is not available in place: this container allows neither namespaces nor mounts (see shale doctor)"
}

// Unavailable returns the names of all limits that are set in l, because an InPlace
// cannot apply any.
func (*InPlace) Unavailable(_ context.Context, l Limits) (names []string, why string) {
	for name := range l.wanted() {
		names = append(names, name)
	}
	if l.Parent != "" {
		names = append(names, "cgroup-parent")
	}
	slices.Sort(names)
	return names, "the control groups of this container are read-only"
}

// Run runs one command, as Runner.Run does. Spec.Rootfs must be the root directory. The
// error is or wraps a *NotInPlaceError if the Spec needs namespaces or mounts.
func (r *InPlace) Run(ctx context.Context, s Spec) (code int, err error) {
	if err := s.validate(); err != nil {
		return 0, fmt.Errorf("run in place: %w", err)
	}
	if err := s.fitsInPlace(); err != nil {
		return 0, err
	}
	st, err := newStubs(s.Rootfs)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cleanErr := st.remove(); cleanErr != nil {
			err = errors.Join(err, fmt.Errorf("clean up after step: %w", cleanErr))
		}
	}()
	st.inPlace = true
	p := &placing{InPlace: r, ctx: ctx, st: st}
	if err := p.all(&s); err != nil { //nolint:contextcheck // what a cache holds is kept even when the step was ended
		return 0, err
	}
	if err := st.makeCwd(s.cwd(), s.UID, s.GID, nil); err != nil {
		return 0, err
	}
	c := inplace.Command{
		Args: s.Args, Env: s.Env, Dir: path.Join(s.Rootfs, s.cwd()), UID: s.UID, GID: s.GID, Groups: s.AdditionalGIDs,
		Limits: map[int]inplace.Limit{}, Grace: s.Grace, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr,
	}
	for _, l := range s.Rlimits {
		c.Limits[rlimits[l.Type]] = inplace.Limit{Soft: l.Soft, Hard: l.Hard}
	}
	for i, name := range capNames {
		if slices.Contains(defaultCaps, name) {
			c.Keep = append(c.Keep, i)
		}
	}
	code, err = inplace.Run(ctx, c)
	if start, ok := errors.AsType[*inplace.StartError](err); ok {
		return start.Code, &ExecError{Code: start.Code, Message: start.Message}
	}
	return code, err
}

func (s *Spec) fitsInPlace() error {
	switch {
	case s.Network != HostNetwork:
		return &NotInPlaceError{"a network other than the container's own (--network=none)"}
	case s.Privileged:
		return &NotInPlaceError{"a step with --security=insecure"}
	case len(s.Devices) > 0 || s.Hooks != nil:
		return &NotInPlaceError{"a step with --device"}
	case s.Terminal:
		return &NotInPlaceError{"a terminal"}
	case s.ReadonlyRootfs:
		return &NotInPlaceError{"a read-only root file system"}
	}
	return nil
}

// placing puts copies and links into the root file system in place of mounts.
type placing struct {
	*InPlace
	ctx   context.Context //nolint:containedctx // lives for one Run
	st    *stubs
	count int
	// kept are the targets of the mounts so far that have Kept set.
	kept []string
}

func (p *placing) all(s *Spec) error {
	files := []Mount{{Type: Bind, Source: s.ResolvConf, Target: "/etc/resolv.conf"}, {Type: Bind, Source: s.Hosts, Target: "/etc/hosts"}}
	for _, m := range files {
		if err := p.network(m, s.HostsAdded && m.Target == "/etc/hosts"); err != nil {
			return fmt.Errorf("%s of the step: %w", m.Target, err)
		}
	}
	for _, m := range s.Mounts {
		if err := p.put(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	return nil
}

// network provides a file that container engines mount: /etc/hosts or /etc/resolv.conf.
// If the engine mounted the file, the step uses the engine's file. If added is set, that
// file gets the content of m.Source until the step ends.
func (p *placing) network(m Mount, added bool) error {
	if m.Source == "" {
		return nil
	}
	points, err := inplace.MountPoints()
	if err != nil {
		return err
	}
	if !slices.Contains(points, m.Target) {
		return p.put(m)
	}
	if !added {
		return nil
	}
	before, err := os.ReadFile(m.Target)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(m.Source)
	if err != nil {
		return err
	}
	p.st.undo = append(p.st.undo, func() error { return os.WriteFile(m.Target, before, 0o644) }) //nolint:gosec // as it was
	return os.WriteFile(m.Target, data, 0o644)                                                   //nolint:gosec // as it was
}

// put makes one mount visible. A file or directory at the target is moved aside until the
// step ends.
func (p *placing) put(m Mount) error {
	dir := true
	if m.Type == Bind {
		info, err := os.Stat(m.Source)
		if err != nil {
			return err
		}
		dir = info.IsDir()
	}
	target, created, err := p.st.place(m.Target, dir)
	if err != nil {
		return err
	}
	parent, err := p.openParent(target)
	if err != nil {
		return err
	}
	at := &placed{dir: parent, name: path.Base(target)}
	p.st.undo = append(p.st.undo, at.undo)
	touched, err := p.st.touch(parent)
	if err != nil {
		return err
	}
	if created {
		// The target is a stub of this package. It must not be moved aside: the directory
		// for that may be on another file system.
		err = inplace.RemoveAt(parent, at.name)
	} else {
		err = p.moveAside(at)
	}
	if err != nil {
		return err
	}
	at.shown = true
	if err := p.show(m, at, created); err != nil {
		return err
	}
	at.leave = created && dir && p.insideKept(target)
	if m.Kept {
		p.kept = append(p.kept, target)
	}
	return setMtime(p.st.before[touched].fd, p.st.before[touched].mtime)
}

// insideKept reports whether target is inside a mount that has Kept set. Such a mount
// also keeps the mount points in it, so they are not removed with the stubs.
func (p *placing) insideKept(target string) bool {
	for _, k := range p.kept {
		if strings.HasPrefix(target, k+"/") {
			p.st.retainBelow(k)
			return true
		}
	}
	return false
}

func (p *placing) openParent(target string) (int, error) {
	rel := strings.TrimPrefix(path.Dir(target), "/")
	if rel == "" {
		rel = "."
	}
	return confine.Open(p.st.root, rel, unix.O_RDONLY|unix.O_DIRECTORY, 0, confine.InRoot|confine.NoSymlinks|confine.NoMagicLinks)
}

// placed is a copy, link or directory at the target of one mount.
type placed struct {
	dir  int // owned
	name string
	// aside is the former file at the target. It is in asideDir under this name, or "" if
	// there was none.
	asideDir int
	aside    string
	// shown is true if the target must be removed by undo.
	shown bool
	// leave is true if undo leaves an empty directory at the target.
	leave bool
	// finish is called before the target is removed. It may be nil.
	finish func() error
}

// moveAside moves the present file at the target to the directory that inplace.Aside
// opens. It returns a *NotInPlaceError if the target is a mount point or on another file
// system.
func (p *placing) moveAside(at *placed) error {
	p.count++
	dir, err := inplace.Aside()
	if err != nil {
		return err
	}
	name := strconv.Itoa(os.Getpid()) + "." + strconv.Itoa(p.count)
	err = unix.Renameat(at.dir, at.name, dir, name)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EBUSY) {
		_ = unix.Close(dir)
		return &NotInPlaceError{"a mount on or in an existing mount of the container"}
	}
	if err != nil {
		_ = unix.Close(dir)
		return fmt.Errorf("make way: %w", err)
	}
	at.asideDir, at.aside = dir, name
	return nil
}

func (p *placing) show(m Mount, at *placed, created bool) error {
	full := "/proc/self/fd/" + strconv.Itoa(at.dir) + "/" + at.name
	switch {
	case m.Type == Tmpfs:
		return p.emptyDir(m, at, created)
	case m.InMemory:
		return unix.Symlinkat(m.Source, at.dir, at.name)
	case m.Kept:
		return p.keep(m, at, full)
	}
	return p.copy(p.ctx, m.Source, full)
}

// emptyDir creates an empty directory in place of a tmpfs. undo removes it with its
// content.
func (p *placing) emptyDir(m Mount, at *placed, created bool) error {
	mode := uint32(0o1777)
	if !created {
		var st unix.Stat_t
		if err := unix.Fstatat(at.asideDir, at.aside, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		mode = st.Mode & 0o7777
	}
	if m.Mode != 0 {
		mode = m.Mode
	}
	if err := unix.Mkdirat(at.dir, at.name, 0o700); err != nil {
		return err
	}
	return unix.Fchmodat(at.dir, at.name, mode, 0)
}

// keep makes the directory m.Source visible at the target. The changes of the step must
// reach m.Source, so keep moves it to the target, and finish moves it back. Between file
// systems both copy it.
func (p *placing) keep(m Mount, at *placed, full string) error {
	err := unix.Renameat(unix.AT_FDCWD, m.Source, at.dir, at.name)
	if err == nil {
		at.finish = func() error {
			// The step may have removed the directory or replaced it. For example, a
			// symbolic link would lead the next step to write to another place. So the
			// source becomes an empty directory.
			if !at.isDir() {
				return os.Mkdir(m.Source, 0o755) //nolint:gosec // docker's mode of a new cache
			}
			return unix.Renameat(at.dir, at.name, unix.AT_FDCWD, m.Source)
		}
		return nil
	}
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	if err := p.copy(p.ctx, m.Source, full); err != nil {
		return err
	}
	at.finish = func() error { return p.writeBack(at, full, m.Source) }
	return nil
}

func (p *placing) writeBack(at *placed, from, to string) error {
	dir, err := os.Open(to)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := inplace.ClearAt(int(dir.Fd())); err != nil {
		return err
	}
	if !at.isDir() {
		return nil
	}
	// Copy the content back even if ctx ended: the cache keeps the files that the step
	// wrote.
	return p.copy(context.WithoutCancel(p.ctx), from, to)
}

// isDir reports whether the name still belongs to a directory.
func (at *placed) isDir() bool {
	var st unix.Stat_t
	err := unix.Fstatat(at.dir, at.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// undo removes the file at the target and moves the former one back.
func (at *placed) undo() error {
	var errs []error
	if at.shown && at.finish != nil {
		errs = append(errs, at.finish())
	}
	if at.shown {
		errs = append(errs, inplace.RemoveAt(at.dir, at.name))
	}
	if at.leave {
		errs = append(errs, unix.Mkdirat(at.dir, at.name, 0o755))
	}
	if at.aside != "" {
		errs = append(errs, unix.Renameat(at.asideDir, at.aside, at.dir, at.name), unix.Close(at.asideDir))
	}
	return errors.Join(append(errs, unix.Close(at.dir))...)
}
