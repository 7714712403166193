//go:build e2e

package e2e

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// exits CODE CMD [ARG…] runs a command that must end with this exit status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE CMD [ARG…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// count N PATTERN fails unless N lines of the last standard error match.
func count(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: count N PATTERN")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	got := 0
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if pattern.MatchString(strings.TrimSuffix(line, "\n")) {
			got++
		}
	}
	if got != want {
		ts.Fatalf("%d lines match %q, want %d", got, args[1], want)
	}
}

// waitfor file PATTERN waits until a file of that name exists, waitfor process
// MARK until a process other than shale's own has MARK in its command line: shale
// run has its step's command in its own from the start.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || (args[0] != "file" && args[0] != "process") {
		ts.Fatalf("usage: waitfor file PATTERN | waitfor process MARK")
	}
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		if args[0] == "file" {
			if found, err := filepath.Glob(ts.MkAbs(args[1])); err == nil && len(found) > 0 {
				return
			}
		} else if slices.ContainsFunc(processesWith(args[1]), isStep) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	ts.Fatalf("%s %s did not come within a minute", args[0], args[1])
}

// isStep reports whether a line of processesWith is not of shale itself.
func isStep(line string) bool {
	_, command, _ := strings.Cut(line, ": ")
	program, _, _ := strings.Cut(command, " ")
	return filepath.Base(program) != "shale"
}

// leftovers [MARK] fails when a build that has ended left a process, a mount,
// a temporary file or a staging directory. A process is the build's when its
// command line contains MARK (those of subordinate ids show nothing more) or
// its environment names the scenario's home.
func leftovers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: leftovers [MARK]")
	}
	var found []string
	// The kernel takes a moment to reap a pid namespace.
	for range 50 {
		if found = leftoversNow(ts, args); len(found) == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	ts.Fatalf("left behind:\n%s", strings.Join(found, "\n"))
}

func leftoversNow(ts *testscript.TestScript, args []string) []string {
	found := processesOf(ts.Getenv("HOME"))
	if len(args) > 0 {
		found = append(found, processesWith(args[0])...)
	}
	scenario := ts.Getenv("SCENARIO")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	ts.Check(err)
	for line := range strings.Lines(string(mounts)) {
		// podman and skopeo run by root mount the directory of layers on itself.
		if strings.Contains(line, scenario) && !strings.Contains(line, " "+filepath.Join(ts.Getenv("STORE"), "overlay")+" ") {
			found = append(found, "mount "+line)
		}
	}
	for _, pattern := range []string{
		filepath.Join(ts.Getenv("TMPDIR"), "*"),
		filepath.Join(ts.Getenv("STORE"), "shale", "staging", "*"),
		filepath.Join(ts.Getenv("STORE"), "overlay", "staging", "*"),
		filepath.Join(ts.Getenv("STORE"), "tmp", "*"),
	} {
		files, err := filepath.Glob(pattern)
		ts.Check(err)
		found = append(found, files...)
	}
	return found
}

// processesWith lists the processes whose command line contains mark.
func processesWith(mark string) []string {
	return processes(func(dir string) bool {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		return err == nil && strings.Contains(strings.ReplaceAll(string(line), "\x00", " "), mark)
	})
}

// processesOf lists the processes of ours whose environment has this home.
// podman's pause process is meant to stay.
func processesOf(home string) []string {
	return processes(func(dir string) bool {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !strings.Contains("\x00"+string(env), "\x00HOME="+home+"\x00") {
			return false
		}
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		return err == nil && !strings.HasPrefix(string(comm), "podman") && !strings.HasPrefix(string(comm), "catatonit")
	})
}

func processes(match func(dir string) bool) []string {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		panic(err) // only a bad pattern
	}
	var found []string
	for _, dir := range dirs {
		if filepath.Base(dir) == strconv.Itoa(os.Getpid()) || !match(dir) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		found = append(found, "process "+filepath.Base(dir)+": "+strings.ReplaceAll(string(line), "\x00", " "))
	}
	return found
}

// killrandom N CMD [ARG…] starts a command N times and kills it with SIGKILL
// at a random moment of the time that an undisturbed run takes. The seed is
// logged. "{}" in an argument becomes the number of the round. Like a user's
// kill it hits the first process alone.
func killRandom(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: killrandom N CMD [ARG…]")
	}
	rounds, err := strconv.Atoi(args[0])
	ts.Check(err)
	command := func(round int) []string {
		var out []string
		for _, arg := range args[1:] {
			out = append(out, strings.ReplaceAll(arg, "{}", strconv.Itoa(round)))
		}
		return out
	}
	start := time.Now()
	first := command(0)
	ts.Check(ts.Exec(first[0], first[1:]...))
	whole := time.Since(start)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	ts.Logf("an undisturbed run takes %v; seed %d", whole, seed)
	for round := 1; round <= rounds; round++ {
		line := command(round)
		after := time.Duration(random.Float64() * float64(whole))
		program, err := execPath(ts, line[0])
		ts.Check(err)
		// Output goes to /dev/null: a pipe would make Wait wait for children.
		cmd := exec.Command(program, line[1:]...)
		cmd.Env = environ(ts)
		cmd.Dir = ts.MkAbs(".")
		ts.Check(cmd.Start())
		time.Sleep(after)
		_ = cmd.Process.Kill()
		ts.Logf("round %d: killed after %v: %v", round, after, cmd.Wait())
	}
}

// execPath finds a program on the scenario's PATH, which is not ours.
func execPath(ts *testscript.TestScript, name string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// environ is the scenario's environment as far as programs need it.
func environ(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "XDG_RUNTIME_DIR", "CONTAINERS_STORAGE_CONF", "CONTAINERS_CONF", "TMPDIR", "LANG"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// faster TIMES CMD [ARG…] runs a command that must take less than a share of
// what the command before took: "faster first CMD" measures, "faster 1/4 CMD"
// compares with the measured one. Only for differences that no noise explains.
func faster(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: faster first|1/N CMD [ARG…]")
	}
	start := time.Now()
	ts.Check(ts.Exec(args[1], args[2:]...))
	took := time.Since(start)
	if args[0] == "first" {
		ts.Setenv("FASTER_NS", strconv.FormatInt(took.Nanoseconds(), 10))
		return
	}
	share, err := strconv.Atoi(strings.TrimPrefix(args[0], "1/"))
	ts.Check(err)
	first, err := strconv.ParseInt(ts.Getenv("FASTER_NS"), 10, 64)
	ts.Check(err)
	if took.Nanoseconds()*int64(share) > first {
		ts.Fatalf("took %v, more than 1/%d of %v", took, share, time.Duration(first))
	}
}
