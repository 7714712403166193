package storetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/shale-build/shale/storage"
)

// insideEnv is set if the test binary was already executed again by Main.
const insideEnv = "SHALE_STORETEST_INSIDE"

// Main is the TestMain of packages whose tests need a store. It returns the exit status.
// If a process was started by Command, Main calls helper instead of the tests; helper may
// be nil if Command is not used.
func Main(m *testing.M, helper func(args []string) int) int {
	if storage.Reexec() {
		return 0
	}
	if os.Getenv(helperEnv) != "" {
		return helper(os.Args[1:])
	}
	if os.Getenv(insideEnv) != "" {
		return m.Run()
	}
	if err := outside(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return exit.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "storetest:", err)
		return 1
	}
	return 0
}

func outside() error {
	if os.Geteuid() != 0 {
		return runAs(nil)
	}
	fmt.Fprintln(os.Stdout, "storetest: as root")
	if err := runAsRoot(); err != nil {
		return err
	}
	if os.Getenv("SHALE_TESTED_AS_USER") != "" {
		return nil
	}
	u, err := unprivileged()
	if err != nil {
		if os.Getenv("SHALE_CI") == "1" {
			return err
		}
		fmt.Fprintln(os.Stdout, "storetest: not run as an unprivileged user:", err)
		return nil
	}
	fmt.Fprintln(os.Stdout, "storetest: as user", u.Username)
	return runAs(u)
}

func runAsRoot() error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find test binary: %w", err)
	}
	cmd := exec.CommandContext(context.Background(), exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=root")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}

// runAs runs the tests in a user namespace of u, or of the caller if u is nil.
func runAs(u *user.User) (err error) {
	dir, err := os.MkdirTemp("", "storetest-")
	if err != nil {
		return fmt.Errorf("create home: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	exe, err := copySelf(dir)
	if err != nil {
		return err
	}
	uid, gid := os.Getuid(), os.Getgid()
	cmd := exec.CommandContext(context.Background(), "unshare", append([]string{
		"--user", "--map-root-user", "--map-auto", "--mount", "--propagation", "private", "--", exe,
	}, userArgs()...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if u != nil {
		if uid, gid, err = ids(u); err != nil {
			return err
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			return fmt.Errorf("create home: %w", err)
		}
	}
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		insideEnv+"=user", "HOME="+dir, "TMPDIR="+dir, "XDG_RUNTIME_DIR="+dir,
		"_CONTAINERS_USERNS_CONFIGURED=done",
		"_CONTAINERS_ROOTLESS_UID="+strconv.Itoa(uid), "_CONTAINERS_ROOTLESS_GID="+strconv.Itoa(gid))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("tests in a user namespace (this needs unshare of util-linux 2.38, newuidmap and a range in /etc/subuid): %w", err)
	}
	return nil
}

// copySelf copies the test binary into dir, where any user can run it.
func copySelf(dir string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find test binary: %w", err)
	}
	in, err := os.Open(exe)
	if err != nil {
		return "", fmt.Errorf("open test binary: %w", err)
	}
	defer func() { _ = in.Close() }()
	path := filepath.Join(dir, "storetest.test")
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755) //nolint:gosec // an executable
	if err != nil {
		return "", fmt.Errorf("copy test binary: %w", err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return "", fmt.Errorf("copy test binary: %w", err)
	}
	return path, nil
}

// userArgs returns the arguments without those that name files to which only the starting
// user may write.
func userArgs() []string {
	var args []string
	for _, a := range os.Args[1:] {
		if !strings.HasPrefix(a, "-test.testlogfile") && !strings.HasPrefix(a, "-test.coverprofile") && !strings.HasPrefix(a, "-test.gocoverdir") {
			args = append(args, a)
		}
	}
	return args
}

func ids(u *user.User) (uid, gid int, err error) {
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, fmt.Errorf("user %s: %w", u.Username, err)
	}
	if gid, err = strconv.Atoi(u.Gid); err != nil {
		return 0, 0, fmt.Errorf("user %s: %w", u.Username, err)
	}
	return uid, gid, nil
}

// unprivileged returns a user with subordinate ids, which is not root.
func unprivileged() (*user.User, error) {
	f, err := os.Open("/etc/subuid")
	if err != nil {
		return nil, fmt.Errorf("find a user with subordinate IDs: %w", err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, _, _ := strings.Cut(lines.Text(), ":")
		if u, err := user.Lookup(name); err == nil && u.Uid != "0" {
			return u, nil
		}
	}
	return nil, errors.New("no user has subordinate IDs in /etc/subuid")
}
