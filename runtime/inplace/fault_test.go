package inplace

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// changes lists the system calls that this package uses to change a file system.
var changes = []string{
	"renameat", "renameat2", "mkdirat", "unlinkat", "linkat", "symlinkat", "mknodat",
	"fchown", "fchownat", "fchmod", "fchmodat", "utimensat", "fsetxattr", "fremovexattr",
}

// faults makes system calls of this process fail if they change a file system. It needs a
// process of its own, because the seccomp filter cannot be removed.
type faults struct {
	mu sync.Mutex
	plan
	// count is the number of calls since the last call of set.
	count int
}

// plan selects the calls that fail with errno: those with the numbers first to last,
// counted from 1. If removes is set, unlinkat does not fail.
type plan struct {
	first, last int
	errno       unix.Errno
	removes     bool
}

// watchChanges installs the filter for all threads of the process.
func watchChanges() (*faults, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	filter, err := libseccomp.NewFilter(libseccomp.ActAllow)
	if err != nil {
		return nil, err
	}
	defer filter.Release()
	for _, name := range changes {
		call, err := libseccomp.GetSyscallFromName(name)
		if errors.Is(err, libseccomp.ErrSyscallDoesNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := filter.AddRule(call, libseccomp.ActNotify); err != nil {
			return nil, err
		}
	}
	call, err := libseccomp.GetSyscallFromName("openat")
	if err != nil {
		return nil, err
	}
	makes, err := libseccomp.MakeCondition(2, libseccomp.CompareMaskedEqual, unix.O_CREAT, unix.O_CREAT)
	if err != nil {
		return nil, err
	}
	err = errors.Join(filter.AddRuleConditional(call, libseccomp.ActNotify, []libseccomp.ScmpCondition{makes}),
		filter.Load())
	if err != nil {
		return nil, fmt.Errorf("watch calls: %w", err)
	}
	fd, err := filter.GetNotifFd()
	if err != nil {
		return nil, err
	}
	f := &faults{}
	go f.answer(fd)
	return f, nil
}

func (f *faults) answer(fd libseccomp.ScmpFd) {
	for {
		request, err := libseccomp.NotifReceive(fd)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			panic(err)
		}
		reply := &libseccomp.ScmpNotifResp{ID: request.ID, Flags: libseccomp.NotifRespFlagContinue}
		if errno := f.next(request.Data.Syscall); errno != 0 {
			reply.Flags, reply.Error = 0, int32(errno)
		}
		if err := libseccomp.NotifRespond(fd, reply); err != nil && !errors.Is(err, unix.ENOENT) {
			panic(err)
		}
	}
}

func (f *faults) next(call libseccomp.ScmpSyscall) unix.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if f.count < f.first || f.count > f.last || f.removes && call == unix.SYS_UNLINKAT {
		return 0
	}
	return f.errno
}

// during runs do while calls fail as planned, and returns the number of calls.
func (f *faults) during(p plan, do func()) int {
	f.set(p)
	do()
	return f.set(plan{})
}

func (f *faults) set(p plan) (count int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	count = f.count
	f.plan, f.count = p, 0
	return count
}

// These are the smallest trees with all cases: a directory with a protected path in it, a
// directory that moves as a whole, and links.
var (
	fewOwn = []entry{
		{path: "a", mode: dirMode, xattrs: map[string]string{"user.whose": "own"}},
		{path: "a/kept", mode: dirMode},
		{path: "a/other", mode: fileMode, what: "own"},
		{path: "b", mode: unix.S_IFDIR | 0o700, uid: 2},
		{path: "b/c", mode: unix.S_IFDIR | 0o750},
		{path: "b/c/file", mode: fileMode, what: "own file"},
		{path: "b/link", what: "b/c/file"},
		{path: "d", mode: unix.S_IFLNK | 0o777, what: "b"},
	}
	fewImage = []entry{
		{path: "a", mode: unix.S_IFDIR | 0o711, uid: 3, xattrs: map[string]string{"user.whose": "image"}},
		{path: "a/other", mode: dirMode},
		{path: "b", mode: fileMode, what: "image"},
		{path: "b2", what: "b"},
		{path: "d", mode: dirMode},
		{path: "d/file", mode: fileMode, what: "image"},
	}
)

// build is a complete build in place. After an error it ends the step and closes the root
// directory, as builds do.
func build(dir string) error {
	r, err := openRoot(dir, []string{"/a/kept"}, nil)
	if err != nil {
		return err
	}
	err = turns(r, dir)
	return errors.Join(err, r.Close())
}

func turns(r *Root, dir string) error {
	if err := r.Begin(); err != nil {
		return err
	}
	err := fillImage(dir)
	r.End()
	if err != nil {
		return err
	}
	release, err := r.Own()
	if err != nil {
		return err
	}
	release()
	if err := r.Begin(); err != nil {
		return err
	}
	r.End()
	release, err = r.Own()
	if err != nil {
		return err
	}
	defer release()
	r.Discard()
	return nil
}

// fillImage is the work of a step. It returns an error if a change fails.
func fillImage(dir string) error {
	for _, e := range fewImage {
		if err := makeFile(dir, e); err != nil {
			return err
		}
	}
	return unix.Chmod(dir, 0o711)
}

// A killed build is simulated by a build whose changes fail from change n on. n is each
// change of the build in turn. The next build restores the files. If that build is killed
// too, the one after it restores them.
func TestKilledAnywhere(t *testing.T) {
	inFaults(t, func(t *testing.T, p place, f *faults) {
		before := p.lasting(t)
		calls := f.during(plan{}, func() { must(t, build(p.dir)) })
		same(t, p.lasting(t), before)
		if calls < 50 {
			t.Errorf("a build makes %d changes: they are not watched", calls)
		}
		for n := 1; n <= calls && !t.Failed(); n++ {
			p.again(t)
			recovery := killed(t, f, p.dir, n, 0)
			sameAfter(t, p, before, "killed at change %d of %d", n, calls)
			// For each n, one change of the recovery is enough.
			p.again(t)
			m := 1 + n*7%recovery
			killed(t, f, p.dir, n, m)
			sameAfter(t, p, before, "killed at change %d of %d, and at change %d of putting it right", n, calls, m)
		}
	})
}

const never = 1 << 30

// killed simulates that a build is killed at change n. If m is not 0, the next build is
// killed at change m. The last build is not killed. It returns the number of changes of
// the last build.
func killed(t *testing.T, f *faults, dir string, n, m int) int {
	t.Helper()
	f.during(plan{first: n, last: never, errno: unix.EIO}, func() {
		if err := build(dir); err == nil {
			t.Errorf("all of whose changes fail from number %d on, it reports no error", n)
		}
	})
	if m > 0 {
		f.during(plan{first: m, last: never, errno: unix.EIO}, func() {
			r, err := openRoot(dir, []string{"/a/kept"}, nil)
			if err == nil {
				_ = r.Close()
			}
		})
	}
	return f.during(plan{}, func() {
		r, err := openRoot(dir, []string{"/a/kept"}, nil)
		if err != nil {
			t.Error(err)
			return
		}
		closed(t, r, dir)
	})
}

// If a change fails, for example because the disk is full, the build returns an error.
// The container's own files are in place again, at the latest after the next build.
func TestChangesThatFail(t *testing.T) {
	for name, p := range map[string]plan{
		"one":                 {errno: unix.ENOSPC},
		"all but of removing": {last: never, errno: unix.ENOSPC, removes: true},
	} {
		t.Run(name, func(t *testing.T) {
			inFaults(t, func(t *testing.T, at place, f *faults) {
				before := at.lasting(t)
				calls := f.during(plan{}, func() { must(t, build(at.dir)) })
				for n := 1; n <= calls && !t.Failed(); n++ {
					at.again(t)
					p.first, p.last = n, max(p.last, n)
					var err error
					f.during(p, func() { err = build(at.dir) })
					if err != nil && !errors.Is(err, unix.ENOSPC) {
						t.Errorf("change %d: no reason in %q", n, err)
					}
					if err == nil {
						sameAfter(t, at, before, "change %d of %d failed without a word", n, calls)
					}
					closed(t, open(t, at.dir, "/a/kept"), at.dir)
					sameAfter(t, at, before, "change %d of %d failed: %v", n, calls, err)
				}
			})
		})
	}
}

func sameAfter(t *testing.T, p place, want map[string]string, format string, args ...any) {
	t.Helper()
	if same(t, p.lasting(t), want); t.Failed() {
		t.Errorf("after: "+format, args...)
	}
}

// lasting describes the state that survives if a build is killed. It omits the times of
// directories. In an overlay it also omits the hard links.
func (p place) lasting(t *testing.T) map[string]string {
	t.Helper()
	out := tree(t, p.dir)
	for name, text := range out {
		if fields := strings.Fields(text); name != "." && strings.HasPrefix(text, "04") {
			out[name] = strings.Join(append(fields[:2:2], fields[3:]...), " ")
		}
		if p.overlay {
			out[name], _, _ = strings.Cut(out[name], " = ")
		}
	}
	return out
}

// inFaults runs a test in a process of its own, under the filter of faults.
func inFaults(t *testing.T, test func(t *testing.T, p place, f *faults)) {
	t.Helper()
	if os.Getenv(envAgain) == "" {
		out, err := again(t, "GODEBUG=asyncpreemptoff=1").CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	f, err := watchChanges()
	must(t, err)
	places(t, func(t *testing.T, dir string) {
		t.Helper()
		makeFiles(t, dir, fewOwn)
	}, func(t *testing.T, p place) {
		test(t, p, f)
	})
}
