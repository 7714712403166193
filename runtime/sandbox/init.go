package sandbox

// #include "handover.h"
import "C"

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/opencontainers/runc/libcontainer/system"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/sandbox/initproc"
)

// The program itself serves as a container's first process if no smaller program is
// embedded.
func init() { initproc.Main() }

// runnerFiles holds the program cmd/shale-init, if the build put it into the directory
// runner.
//
//go:embed runner
var runnerFiles embed.FS

const runnerName = "runner/shale-init"

// offerRunner puts the embedded program at the file descriptor at which containers' first
// processes look for it (handover.c). It does so once per process, and reports whether
// the program is there. Without it, containers start slower.
//
// The program is held in a sealed file in memory. So no process in a container can reach
// a file of the host through /proc/self/exe, or change it (CVE-2019-5736).
var offerRunner = sync.OnceValues(func() (bool, error) {
	program, err := runnerFiles.ReadFile(runnerName)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read embedded program: %w", err)
	}
	f, err := sealed("shale-init", program)
	if err != nil {
		return false, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, C.SHALE_RUNNER_FD)
	if err != nil {
		return false, fmt.Errorf("keep embedded program: %w", err)
	}
	if fd != C.SHALE_RUNNER_FD {
		return false, errors.Join(fmt.Errorf("descriptor %d is taken", C.SHALE_RUNNER_FD), unix.Close(fd))
	}
	return true, nil
})

// TrialProgram returns the program that a trial runs (see package initproc). The embedded
// program is static and needs no other file. An error means that the program could not be
// read.
func TrialProgram() ([]byte, error) {
	program, err := runnerFiles.ReadFile(runnerName)
	if errors.Is(err, fs.ErrNotExist) {
		// This program does the same as the embedded one, but it is larger.
		program, err = os.ReadFile("/proc/self/exe")
	}
	if err != nil {
		return nil, fmt.Errorf("read the program of a trial: %w", err)
	}
	return program, nil
}

// sealed creates an executable file in memory that no process can change
// (memfd_create(2), Linux 3.17). It fails if sysctl vm.memfd_noexec is 2.
func sealed(name string, content []byte) (*os.File, error) {
	f, err := system.ExecutableMemfd(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make file in memory: %w", err)
	}
	if _, err := f.Write(content); err != nil {
		return nil, errors.Join(fmt.Errorf("fill file in memory: %w", err), f.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal file in memory: %w", err), f.Close())
	}
	return f, nil
}
