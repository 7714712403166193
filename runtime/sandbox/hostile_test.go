package sandbox_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hostile are programs that tests run inside a step. The test executes its own binary
// with the name of a program and an argument for it. These programs have threads and make
// system calls that a shell cannot make.
var hostile = map[string]func(arg string) error{
	"rewrite": rewriteArguments, "close": closeDescriptors, "exec": execAmidCalls, "exec-again": execAmidCalls,
	"die": dieAmidCalls, "calls": callForEver, "shut": shutMemory, "slack": forgeIdentity, "bomb": forkBomb, "steal": openForNothing,
	"chowns": changeOwners, "keeps": copyUp, "arguments": giveOddArguments, "parents": makeAmidParents, "unreadable": openUnreadable,
}

// runHostile runs the program that the command line names, if any.
func runHostile() {
	if len(os.Args) != 3 || os.Args[0] != "hostile" {
		return
	}
	if err := hostile[os.Args[1]](os.Args[2]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// pathCalls makes each of the supervised system calls that take a path, with the path at
// the given address.
func pathCalls(path uintptr) {
	var buf [256]byte
	out, here := uintptr(unsafe.Pointer(&buf)), uintptr(1<<64-100) // AT_FDCWD
	for _, c := range [][7]uintptr{
		{unix.SYS_FCHOWNAT, here, path, 7, 7, 0},
		{unix.SYS_FCHOWNAT, here, path, 7, 7, unix.AT_SYMLINK_NOFOLLOW},
		{unix.SYS_MKDIRAT, here, path, 0o777},
		{unix.SYS_MKNODAT, here, path, unix.S_IFCHR | 0o666, 0x103},
		{unix.SYS_MKNODAT, here, path, unix.S_IFIFO | 0o666, 0},
		{unix.SYS_SYMLINKAT, path, here, path},
		{unix.SYS_STATX, here, path, 0, 0x7ff, out},
		{unix.SYS_RENAMEAT2, here, path, here, path, 0},
		{unix.SYS_LISTXATTR, path, out, 256},
		{unix.SYS_SETXATTR, path, path, out, 4, 0},
		{unix.SYS_UNLINKAT, here, path, 0},
		{unix.SYS_UNLINKAT, here, path, unix.AT_REMOVEDIR},
	} {
		_, _, _ = syscall.Syscall6(c[0], c[1], c[2], c[3], c[4], c[5], c[6])
	}
	if fd, _, errno := syscall.Syscall6(unix.SYS_OPENAT, here, path, unix.O_CREAT|unix.O_RDWR, 0o666, 0, 0); errno == 0 {
		_ = unix.Close(int(fd))
	}
	if fd, _, errno := syscall.Syscall6(unix.SYS_OPENAT, here, path, unix.O_TMPFILE|unix.O_RDWR, 0o666, 0, 0); errno == 0 {
		_ = unix.Close(int(fd))
	}
}

// rewriteArguments tests a race. One thread changes the path argument while other
// threads' calls are answered. The path alternates between a file inside and several ways
// to a directory outside, with and without a terminating NUL byte.
func rewriteArguments(outside string) error {
	const page = 4096
	mem, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	if err := unix.Mprotect(mem[page:], unix.PROT_NONE); err != nil {
		return err
	}
	up := strings.Repeat("/..", 20)
	paths := []string{"/tmp/in", "/tmp" + up + outside, "/proc/self/fd" + up + outside, "/dev/fd/3" + up + outside, "/proc/self" + up + outside, "/tmp/out"}
	if err := os.Symlink(up[1:]+outside, "/tmp/out"); err != nil {
		return err
	}
	buf := mem[page-512 : page]
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			p := paths[i%len(paths)]
			copy(buf, p)
			if i%3 > 0 {
				buf[len(p)] = 0 // else the path has no end in this page
			}
		}
	})
	identities(func() {
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
			pathCalls(uintptr(unsafe.Pointer(&buf[0])))
		}
	})
	stop.Store(true)
	wg.Wait()
	return nil
}

// identities calls fn as root and as another user, each on its own thread.
func identities(fn func()) {
	var wg sync.WaitGroup
	for _, id := range []uintptr{0, 1000} {
		wg.Go(func() {
			runtime.LockOSThread()
			_, _, _ = syscall.Syscall(unix.SYS_SETRESUID, id, id, id)
			fn()
		})
	}
	wg.Wait()
}

// closeDescriptors tests a race: one thread closes and replaces the file descriptor that
// other threads use in their calls.
func closeDescriptors(string) error {
	const number = 200
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			name := []string{"/tmp", "/tmp/f", "/proc/self", "/dev/null"}[i%4]
			if fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CREAT*(i%4&1), 0o600); err == nil {
				_ = unix.Dup3(fd, number, 0)
				_ = unix.Close(fd)
			}
			_ = unix.Close(number)
		}
	})
	identities(func() {
		var st unix.Stat_t
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
			_ = unix.Fchown(number, 5, 5)
			_ = unix.Fstat(number, &st)
			_ = unix.Mkdirat(number, "d", 0o700)
			_ = unix.Unlinkat(number, "d", unix.AT_REMOVEDIR)
			if fd, err := unix.Openat(number, "n", unix.O_CREAT|unix.O_RDWR, 0o600); err == nil {
				_ = unix.Close(fd)
			}
			_, _ = unix.Flistxattr(number, nil)
			_, _ = unix.GetsockoptUcred(number, unix.SOL_SOCKET, unix.SO_PEERCRED)
		}
	})
	stop.Store(true)
	wg.Wait()
	return nil
}

// execAmidCalls executes its program again and again while its other threads wait for
// answers. Each execve(2) ends these threads.
func execAmidCalls(left string) error {
	n, err := strconv.Atoi(left)
	if err != nil || n == 0 {
		fmt.Print("ok")
		return err
	}
	for range 4 {
		go callForEver("")
	}
	time.Sleep(time.Duration(n) * time.Millisecond)
	return unix.Exec("/hostile", []string{"hostile", "exec-again", strconv.Itoa(n - 1)}, os.Environ())
}

// callForEver makes supervised system calls in an endless loop.
func callForEver(string) error {
	path := append([]byte("/tmp/"+strconv.Itoa(os.Getpid())), 0)
	for {
		pathCalls(uintptr(unsafe.Pointer(&path[0])))
		_ = os.Getuid()
	}
}

// dieAmidCalls starts processes that make supervised system calls, and kills them.
func dieAmidCalls(string) error {
	for i := range 60 {
		c := exec.Command("/hostile", "calls", "")
		c.Args[0] = "hostile"
		if i%2 == 1 {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(i), Gid: uint32(i), NoSetGroups: true}}
		}
		if err := c.Start(); err != nil {
			return err
		}
		time.Sleep(time.Duration(i%20) * time.Millisecond)
		_ = c.Process.Kill()
		if err := c.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			return fmt.Errorf("round %d: %w", i, err)
		}
	}
	fmt.Print("ok")
	return nil
}

// shutMemory makes its memory inaccessible as far as a process can. Its calls must either
// succeed or fail with EFAULT, and must never block.
func shutMemory(string) error {
	if err := os.WriteFile("/tmp/f", nil, 0o600); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	if err := os.Chown("/tmp/f", 12, 34); err != nil {
		return fmt.Errorf("undumpable: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/tmp/f", &st); err != nil || st.Uid != 12 || st.Gid != 34 {
		return fmt.Errorf("undumpable: owner %d:%d, %w", st.Uid, st.Gid, err)
	}
	shut, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	// Go does not move this memory.
	open, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	copy(open, "/tmp/f\x00")
	path, out := uintptr(unsafe.Pointer(&open[0])), uintptr(unsafe.Pointer(&open[2048]))
	for _, c := range []struct {
		name      string
		path, out uintptr
	}{
		{"path in shut memory", uintptr(unsafe.Pointer(&shut[0])), out},
		{"path at 1", 1, out},
		{"answer at 1", path, 1},
		{"answer beyond user memory", path, ^uintptr(0) - 4095},
	} {
		_, _, errno := syscall.Syscall6(unix.SYS_STATX, 1<<64-100, c.path, 0, 0x7ff, c.out, 0)
		if errno != unix.EFAULT {
			return fmt.Errorf("%s: %w", c.name, errno)
		}
	}
	fmt.Print("ok")
	return nil
}

// forgeIdentity writes to the file in which the supervisor keeps the identity of a
// thread.
func forgeIdentity(string) error {
	runtime.LockOSThread()
	for _, v := range []string{"0", "1", "50001", "50002", "115536", "115537", "4294967296", "9223372036854775807", "18446744073709551615"} {
		_ = os.WriteFile("/proc/thread-self/timerslack_ns", []byte(v), 0)
		_, _, _ = syscall.Syscall(unix.SYS_SETRESUID, 1000, 1000, 1000)
		_ = os.Getuid()
		_ = unix.Mkdir("/tmp/d"+v, 0o700)
	}
	fmt.Print("ok")
	return nil
}

// forkBomb starts two copies of itself, each of which does the same until depth arg. It
// leaves all of them running.
func forkBomb(arg string) error {
	depth, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	if depth == 0 {
		return callForEver("")
	}
	for i := range 2 {
		c := exec.Command("/hostile", "bomb", strconv.Itoa(depth-1))
		c.Args[0] = "hostile"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(depth*2 + i), NoSetGroups: true}}
		_ = c.Start() // may fail at the limit of processes
	}
	time.Sleep(time.Second)
	return nil
}

// openForNothing opens an existing file with flags that create no file. The file must
// keep its owner.
func openForNothing(string) error {
	runtime.LockOSThread()
	if err := os.WriteFile("/tmp/root", nil, 0o600); err != nil {
		return err
	}
	_, _, _ = syscall.Syscall(unix.SYS_SETRESUID, 1000, 1000, 1000)
	for _, flags := range []int{unix.O_PATH | unix.O_CREAT, unix.O_CREAT | unix.O_RDONLY, unix.O_PATH | unix.O_TMPFILE} {
		if fd, err := unix.Open("/tmp/root", flags, 0o600); err == nil {
			_ = unix.Close(fd)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat("/tmp/root", &st); err != nil || st.Uid != 0 {
		return fmt.Errorf("root's file is owned by %d, %w", st.Uid, err)
	}
	if _, err := unix.Open("/tmp/none", unix.O_PATH|unix.O_CREAT, 0o600); err != unix.ENOENT {
		return fmt.Errorf("O_PATH made a file: %w", err)
	}
	fmt.Print("ok")
	return nil
}

// openUnreadable has calls answered whose path cannot be read, after one whose path is
// longer than the buffer of the supervisor. The supervisor must not take the rest of
// the buffer for a path.
func openUnreadable(string) error {
	runtime.LockOSThread()
	long, err := unix.BytePtrFromString("/" + strings.Repeat("tmp/../", 500) + "tmp")
	if err != nil {
		return err
	}
	var x unix.Statx_t
	here := uintptr(1<<64 - 100) // AT_FDCWD
	for range 2000 {
		if _, _, errno := syscall.Syscall6(unix.SYS_STATX, here, uintptr(unsafe.Pointer(long)), 0, unix.STATX_ALL, uintptr(unsafe.Pointer(&x)), 0); errno != 0 {
			return fmt.Errorf("stat with a long path: %w", errno)
		}
		for range 5 {
			if _, _, errno := syscall.Syscall6(unix.SYS_OPENAT, here, 1, unix.O_CREAT|unix.O_WRONLY, 0, 0, 0); errno != unix.EFAULT {
				return fmt.Errorf("open with a path that cannot be read: %w", errno)
			}
		}
	}
	fmt.Print("ok")
	return nil
}
