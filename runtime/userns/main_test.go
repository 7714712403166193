package userns_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/userns"
)

// state is the state of a process after Enter.
type state struct {
	Info     userns.Info
	PID      int
	UID, GID int
	Umask    int
	Args     []string
	Env      []string
	Caps     string // inheritable, effective and ambient set
	Groups   string // /proc/self/setgroups
	Map      string
	Error    string
}

// TestMain runs the tests. If USERNS_TEST is set, the process is the program under test:
// it enters the given mode and prints its state. An action after a colon replaces the
// printing.
func TestMain(m *testing.M) {
	request, ok := os.LookupEnv("USERNS_TEST")
	if !ok {
		os.Exit(m.Run())
	}
	mode, action, _ := strings.Cut(request, ":")
	info, err := userns.Enter(context.Background(), userns.Options{Force: userns.Mode(mode)})
	switch action {
	case "exit":
		os.Exit(42)
	case "wait":
		fmt.Println("ready")
		select {}
	}
	s := observe(info)
	if err != nil {
		s.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func observe(info userns.Info) state {
	mask := unix.Umask(0)
	s := state{Info: info, PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Umask: mask, Args: os.Args, Env: os.Environ()}
	for _, f := range []string{"Inh", "Eff", "Amb"} {
		s.Caps += field("/proc/thread-self/status", "Cap"+f+":") + " "
	}
	b, _ := os.ReadFile("/proc/self/setgroups")
	s.Groups = strings.TrimSpace(string(b))
	b, _ = os.ReadFile("/proc/self/uid_map")
	s.Map = strings.Join(strings.Fields(string(b)), " ")
	return s
}

func field(path, name string) string {
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
