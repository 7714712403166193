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

// exits CODE CMD [ARG…] runs a command and fails if its exit status is not CODE.
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

// count N PATTERN fails if the number of matching lines in the last standard error is not
// N.
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

// waitfor file PATTERN waits until a file matches PATTERN. waitfor process MARK waits
// until a process other than shale has MARK in its command line. shale itself is
// excluded, because the command line of shale run contains the step's command from the
// start.
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

// isStep reports whether a line of processesWith belongs to a program other than shale.
func isStep(line string) bool {
	_, command, _ := strings.Cut(line, ": ")
	program, _, _ := strings.Cut(command, " ")
	return filepath.Base(program) != "shale"
}

// leftovers [MARK] fails if a build that has ended left a process, a mount, a temporary
// file or a staging directory. A process belongs to the build if its command line
// contains MARK or if its environment has the scenario's home. For processes of
// subordinate ids, only the command line can be read.
func leftovers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: leftovers [MARK]")
	}
	var found []string
	// The kernel needs a moment to end the processes of a PID namespace.
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
		// If podman and skopeo run as root, they mount the directory of layers on itself.
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

// processesWith returns the processes with mark in their command line.
func processesWith(mark string) []string {
	return processes(func(dir string) bool {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		return err == nil && strings.Contains(strings.ReplaceAll(string(line), "\x00", " "), mark)
	})
}

// processesOf returns this user's processes with this home in their environment. It omits
// podman's pause process, which is meant to stay.
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
		panic(err) // only if the pattern is malformed
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

// killrandom N CMD [ARG…] starts a command N times and kills it with SIGKILL. The moment
// is random within the duration of an undisturbed run. The seed is logged. "{}" in an
// argument is replaced by the number of the round. Only the first process is killed, as
// by a user's kill command.
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
		// Output goes to /dev/null, because with a pipe Wait would also wait for
		// children.
		cmd := exec.Command(program, line[1:]...)
		cmd.Env = environ(ts)
		cmd.Dir = ts.MkAbs(".")
		ts.Check(cmd.Start())
		time.Sleep(after)
		_ = cmd.Process.Kill()
		ts.Logf("round %d: killed after %v: %v", round, after, cmd.Wait())
	}
}

// execPath finds a program on the scenario's PATH, which differs from the test's PATH.
func execPath(ts *testscript.TestScript, name string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// environ returns the variables of the scenario's environment that programs need.
func environ(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "XDG_RUNTIME_DIR", "CONTAINERS_STORAGE_CONF", "CONTAINERS_CONF", "TMPDIR", "LANG"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// faster first CMD [ARG…] measures the time of a command. A later faster 1/N CMD [ARG…]
// fails if its command takes more than 1/N of that time. Scripts must use it only for
// differences that are too large to be noise.
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
