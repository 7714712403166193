package inplace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// envGuard is set in the environment of a guard. Its value is the JSON list of protected
// paths.
const envGuard = "_SHALE_INPLACE_GUARD"

// envVault is set in the environment of a guard that inherits a vault as file descriptor
// vaultFD.
const (
	envVault = "_SHALE_INPLACE_VAULT"
	vaultFD  = 4
)

// guard is a process that puts the container's own files back if the builder is killed.
// Without it the files would stay hidden until the next build. That build could not
// start, because its own program would be hidden too.
type guard struct {
	cmd *exec.Cmd
	// line is a pipe to the guard. The guard reads EOF from it when the builder ends.
	line *os.File
}

func startGuard(protected []string, v *vault) (*guard, error) {
	request, err := json.Marshal(protected)
	if err != nil {
		return nil, err
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // it outlives this process
	cmd.Args = []string{"shale-guard"}
	cmd.Env = []string{envGuard + "=" + string(request), "GOMAXPROCS=1"}
	cmd.Dir, cmd.Stderr = "/", os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	if v != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, v.file)
		cmd.Env = append(cmd.Env, envVault+"=1")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = errors.Join(cmd.Start(), theirs.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("build in place: start the guard: %w", err), ours.Close())
	}
	return &guard{cmd: cmd, line: ours}, nil
}

// dismiss ends the guard after the builder has restored the files itself.
func (g *guard) dismiss() error {
	_, err := g.line.Write([]byte{1})
	return errors.Join(err, g.line.Close(), g.cmd.Wait())
}

func init() {
	request := os.Getenv(envGuard)
	if request == "" {
		return
	}
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if err := watch([]byte(request), os.NewFile(requestFD, "line")); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "shale: put back the files of a killed build:", err)
	}
	os.Exit(0) //nolint:forbidigo // a process of our own, which has no main
}

func watch(request []byte, line *os.File) error {
	var protected []string
	if err := json.Unmarshal(request, &protected); err != nil {
		return err
	}
	if word, err := io.ReadAll(line); err != nil || len(word) > 0 {
		return err
	}
	// The first process of a running step is killing the step at this moment.
	time.Sleep(guardDelay)
	root, err := OpenRoot(protected, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	if os.Getenv(envVault) != "" {
		root.vault = &vault{file: os.NewFile(vaultFD, "logins")}
		err = root.vault.empty(root.fd)
	}
	return errors.Join(err, root.Close())
}

// guardDelay is the time that the step of a killed builder gets to end.
const guardDelay = 200 * time.Millisecond
