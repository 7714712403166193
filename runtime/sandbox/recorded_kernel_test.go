package sandbox_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/sandbox"
)

// The answers for recorded ownership must equal the kernel's. Each program runs twice,
// with one mapped id and, if possible, with all ids. Both runs must print the same.
func TestRecordedIsTheKernels(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		program string
		user    uint32
		want    string
	}{
		{"chowns", 0, `
root -1:-1 regular 755: ok, 5:6 755, touched
root -1:-1 set-id 6755: ok, 5:6 755, touched
root -1:-1 lock bit 2745: ok, 5:6 2745, touched
root 7:-1 capable 755: ok, 7:6 755, touched, without capability
stranger -1:-1 regular 755: ok, 5:6 755, touched
stranger -1:-1 set-id 6755: operation not permitted, 5:6 6755
stranger -1:-1 lock bit 2745: operation not permitted, 5:6 2745
stranger -1:-1 capable 755: ok, 5:6 755, touched, without capability
stranger -1:-1 directory 6755: ok, 5:6 6755, touched
stranger -1:-1 link 777: ok, 5:6 777, touched
stranger 5:-1 regular 755: operation not permitted, 5:6 755
stranger -1:6 regular 755: operation not permitted, 5:6 755
stranger 5:6 regular 755: operation not permitted, 5:6 755
colleague -1:-1 lock bit 2745: ok, 5:6 2745, touched
colleague -1:6 regular 755: operation not permitted, 5:6 755
owner -1:-1 set-id 6755: ok, 5:6 755, touched
owner 5:6 set-id 6755: ok, 5:6 755, touched
owner -1:6 lock bit 2745: ok, 5:6 745, touched
owner -1:8 regular 755: ok, 5:8 755, touched
owner -1:9 regular 755: operation not permitted, 5:6 755
owner 6:-1 regular 755: operation not permitted, 5:6 755
owner -1:-1 directory 6755: ok, 5:6 6755, touched
lchown ok
fchown ok
fchown of a name bad file descriptor
fchownat of a name ok
fchownat of nothing no such file or directory
fchownat with an unknown flag invalid argument
of what is not there no such file or directory
read-only -1:-1 read-only file system
read-only 1:1 read-only file system
`},
		{"parents", 0, `
mkdir: all the user's
open: all the user's
symlink: all the user's
mknod: all the user's
nothing there: no such file or directory
a file there: not a directory
`},
		{"arguments", 1234, `
prctl keeps: ok, 1
prctl with more above: ok, 0
prctl slack with more above: ok, 0
peer 1234:1234
peer with more above 1234:1234
peer of less than nothing: invalid argument
peer of half: ok, 8
`},
	}
	r := newRunner(t)
	for _, tt := range tests {
		t.Run(tt.program, func(t *testing.T) {
			for _, one := range []bool{true, false} {
				if !one && entered.SingleID() {
					continue
				}
				root, mounts := usrRootfs(t)
				ro := filepath.Join(filepath.Dir(root), "ro")
				if err := os.Mkdir(ro, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(ro, "f"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				s := shell(root, "")
				if one {
					s = recordedSpec(root, "")
				}
				s.UID, s.GID = tt.user, tt.user
				s.Mounts = append(mounts, sandbox.Mount{Source: exe, Target: "/hostile", ReadOnly: true}, sandbox.Mount{Source: ro, Target: "/ro", ReadOnly: true})
				s.Args = []string{"/usr/bin/perl", "-e", `exec {"/hostile"} "hostile", @ARGV`, tt.program, ""}
				code, out, err := runIn(t, r, s)
				if err != nil || code != 0 || "\n"+out != tt.want {
					t.Errorf("one id: %v, code %d, %v\n%s", one, code, err, out)
				}
			}
		})
	}
}

// asUser calls fn on a thread that has become the given user. The thread ends with fn.
func asUser(uid, gid uint32, groups []uint32, fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		_, _, _ = syscall.Syscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
		_, _, _ = syscall.Syscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid))
		_, _, _ = syscall.Syscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		fn()
	}()
	<-done
}

// makeAmidParents creates files, as a user, in directories that another thread creates at
// the same time. It prints whether they belong to the user.
func makeAmidParents(string) error {
	const rounds, threads = 300, 4
	unix.Umask(0)
	if err := os.Chmod("/tmp", 0o1777); err != nil {
		return err
	}
	for _, c := range []struct {
		call string
		make func(name string) error
	}{
		{"mkdir", func(name string) error { return unix.Mkdir(name, 0o755) }},
		{"open", func(name string) error {
			fd, err := unix.Open(name, unix.O_CREAT|unix.O_WRONLY, 0o644)
			if err == nil {
				err = unix.Close(fd)
			}
			return err
		}},
		{"symlink", func(name string) error { return unix.Symlink("nowhere", name) }},
		{"mknod", func(name string) error { return unix.Mknod(name, unix.S_IFIFO|0o644, 0) }},
	} {
		var others atomic.Int64
		var step, busy atomic.Int64
		errs := make([]error, threads)
		var wait sync.WaitGroup
		dir := func(i int64) string { return fmt.Sprintf("/tmp/%s-%d", c.call, i) }
		for n := range threads {
			wait.Go(func() {
				asUser(1234, 1234, nil, func() {
					for i := range int64(rounds) {
						for step.Load() < i {
							runtime.Gosched()
						}
						name := fmt.Sprintf("%s/%d", dir(i), n)
						err := c.make(name)
						for errors.Is(err, unix.ENOENT) {
							err = c.make(name)
						}
						var st unix.Stat_t
						if err == nil {
							err = unix.Lstat(name, &st)
						}
						if err != nil {
							errs[n] = err
							return
						}
						if st.Uid != 1234 || st.Gid != 1234 {
							others.Add(1)
						}
						busy.Add(1)
					}
				})
			})
		}
		asUser(1234, 1234, nil, func() {
			for i := range int64(rounds) {
				step.Store(i)
				if err := unix.Mkdir(dir(i), 0o755); err != nil {
					errs[0] = err
					return
				}
				for busy.Load() < (i+1)*threads {
					runtime.Gosched()
				}
			}
		})
		wait.Wait()
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("%s: %w", c.call, err)
		}
		whose := "all the user's"
		if n := others.Load(); n > 0 {
			whose = fmt.Sprintf("%d of %d somebody else's", n, rounds*threads)
		}
		fmt.Printf("%s: %s\n", c.call, whose)
	}
	asUser(1234, 1234, nil, func() {
		fmt.Println("nothing there:", said(unix.Mkdir("/tmp/none/of/it", 0o755)))
		_, err := unix.Open("/tmp/open-0/0/x", unix.O_CREAT|unix.O_WRONLY, 0o644)
		fmt.Println("a file there:", said(err))
	})
	return nil
}

func said(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

// changeOwners lets several users change owners and prints the results.
func changeOwners(string) error {
	const same = -1
	unix.Umask(0)
	if err := os.Chmod("/tmp", 0o1777); err != nil {
		return err
	}
	users := map[string]func(func()){
		"root":      func(fn func()) { fn() },
		"stranger":  func(fn func()) { asUser(1000, 1000, nil, fn) },
		"colleague": func(fn func()) { asUser(1000, 1000, []uint32{6}, fn) },
		"owner":     func(fn func()) { asUser(5, 5, []uint32{8}, fn) },
	}
	for _, c := range []struct {
		user     string
		uid, gid int
		kind     string
		mode     uint32
	}{
		{"root", same, same, "regular", 0o755},
		{"root", same, same, "set-id", 0o6755},
		{"root", same, same, "lock bit", 0o2745},
		{"root", 7, same, "capable", 0o755},
		{"stranger", same, same, "regular", 0o755},
		{"stranger", same, same, "set-id", 0o6755},
		{"stranger", same, same, "lock bit", 0o2745},
		{"stranger", same, same, "capable", 0o755},
		{"stranger", same, same, "directory", 0o6755},
		{"stranger", same, same, "link", 0o777},
		{"stranger", 5, same, "regular", 0o755},
		{"stranger", same, 6, "regular", 0o755},
		{"stranger", 5, 6, "regular", 0o755},
		{"colleague", same, same, "lock bit", 0o2745},
		{"colleague", same, 6, "regular", 0o755},
		{"owner", same, same, "set-id", 0o6755},
		{"owner", 5, 6, "set-id", 0o6755},
		{"owner", same, 6, "lock bit", 0o2745},
		{"owner", same, 8, "regular", 0o755},
		{"owner", same, 9, "regular", 0o755},
		{"owner", 6, same, "regular", 0o755},
		{"owner", same, same, "directory", 0o6755},
	} {
		if err := newFile("/tmp/f", c.kind, c.mode); err != nil {
			return err
		}
		var was, is unix.Stat_t
		if err := unix.Lstat("/tmp/f", &was); err != nil {
			return err
		}
		// The kernel updates the clock for file times only at its ticks.
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 20_000_000}, nil)
		var err error
		users[c.user](func() { err = unix.Fchownat(unix.AT_FDCWD, "/tmp/f", c.uid, c.gid, unix.AT_SYMLINK_NOFOLLOW) })
		if err := unix.Lstat("/tmp/f", &is); err != nil {
			return err
		}
		fmt.Printf("%s %d:%d %s %o: %s, %d:%d %o", c.user, c.uid, c.gid, c.kind, c.mode, said(err), is.Uid, is.Gid, is.Mode&0o7777)
		if is.Ctim != was.Ctim {
			fmt.Print(", touched")
		}
		if _, err := unix.Lgetxattr("/tmp/f", "security.capability", nil); c.kind == "capable" && errors.Is(err, unix.ENODATA) {
			fmt.Print(", without capability")
		}
		fmt.Println()
		if err := os.RemoveAll("/tmp/f"); err != nil {
			return err
		}
	}
	return changeOwnersBy()
}

// changeOwnersBy changes owners with each way to name a file.
func changeOwnersBy() error {
	if err := newFile("/tmp/f", "regular", 0o755); err != nil {
		return err
	}
	fd, err := unix.Open("/tmp/f", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	name, err := unix.Open("/tmp/f", unix.O_PATH, 0)
	if err != nil {
		return err
	}
	asUser(1000, 1000, nil, func() {
		fmt.Println("lchown", said(unix.Lchown("/tmp/f", -1, -1)))
		fmt.Println("fchown", said(unix.Fchown(fd, -1, -1)))
		fmt.Println("fchown of a name", said(unix.Fchown(name, -1, -1)))
		fmt.Println("fchownat of a name", said(unix.Fchownat(name, "", -1, -1, unix.AT_EMPTY_PATH)))
		fmt.Println("fchownat of nothing", said(unix.Fchownat(name, "", -1, -1, 0)))
		fmt.Println("fchownat with an unknown flag", said(unix.Fchownat(name, "", -1, -1, unix.AT_EMPTY_PATH|1)))
		fmt.Println("of what is not there", said(unix.Fchownat(unix.AT_FDCWD, "/tmp/none", -1, -1, 0)))
		fmt.Println("read-only -1:-1", said(unix.Fchownat(unix.AT_FDCWD, "/ro/f", -1, -1, 0)))
		fmt.Println("read-only 1:1", said(unix.Fchownat(unix.AT_FDCWD, "/ro/f", 1, 1, 0)))
	})
	return nil
}

// giveOddArguments makes system calls with arguments that the kernel truncates or
// refuses.
func giveOddArguments(string) error {
	runtime.LockOSThread()
	const above = 7 << 32 // the kernel ignores these bits
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	keep := func(what string, option, value uintptr) {
		_, _, errno := syscall.Syscall(unix.SYS_PRCTL, option, value, 0)
		kept, _, _ := syscall.Syscall(unix.SYS_PRCTL, unix.PR_GET_KEEPCAPS, 0, 0)
		fmt.Printf("prctl %s: %s, %d\n", what, saidErrno(errno), kept)
	}
	keep("keeps", unix.PR_SET_KEEPCAPS, 1)
	keep("with more above", above|unix.PR_SET_KEEPCAPS, 0)
	keep("slack with more above", above|unix.PR_SET_TIMERSLACK, 1)
	ask := func(level uintptr, size int32) (unix.Ucred, int32, syscall.Errno) {
		var cred unix.Ucred
		_, _, errno := syscall.Syscall6(unix.SYS_GETSOCKOPT, uintptr(pair[0]), level, unix.SO_PEERCRED, uintptr(unsafe.Pointer(&cred)), uintptr(unsafe.Pointer(&size)), 0)
		return cred, size, errno
	}
	cred, _, _ := ask(unix.SOL_SOCKET, 12)
	fmt.Printf("peer %d:%d\n", cred.Uid, cred.Gid)
	cred, _, _ = ask(above|unix.SOL_SOCKET, 12)
	fmt.Printf("peer with more above %d:%d\n", cred.Uid, cred.Gid)
	_, _, errno := ask(unix.SOL_SOCKET, -1)
	fmt.Println("peer of less than nothing:", saidErrno(errno))
	_, size, errno := ask(unix.SOL_SOCKET, 8)
	fmt.Printf("peer of half: %s, %d\n", saidErrno(errno), size)
	return nil
}

func saidErrno(errno syscall.Errno) string {
	if errno == 0 {
		return "ok"
	}
	return errno.Error()
}

// newFile creates a file that belongs to user 5 and group 6.
func newFile(path, kind string, mode uint32) error {
	var err error
	switch kind {
	case "directory":
		err = os.Mkdir(path, 0o755)
	case "link":
		err = os.Symlink("/", path)
	default:
		err = os.WriteFile(path, nil, 0o600)
	}
	if err == nil {
		err = os.Lchown(path, 5, 6)
	}
	if err == nil && kind != "link" {
		err = unix.Chmod(path, mode)
	}
	if err == nil && kind == "capable" {
		// struct vfs_cap_data of version 2: CAP_CHOWN, effective.
		value := make([]byte, 20)
		value[0], value[3], value[4] = 1, 2, 1
		err = unix.Setxattr(path, "security.capability", value, 0)
	}
	return err
}
