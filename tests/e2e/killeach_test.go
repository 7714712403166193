//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// killEach implements killeach N CHECK CMD [ARG…]. It starts a command N times and kills
// it with SIGKILL. The moment is random within the duration of an undisturbed run. After
// each kill, it runs the script CHECK. If a check fails, it stops and prints the seed.
// Only the first process is killed, as by a user's kill command. "{}" in an argument is
// replaced by the number of the round.
func killEach(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: killeach N CHECK CMD [ARG…]")
	}
	rounds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	check, line := args[1], args[2:]
	begun := time.Now()
	if out, err := killable(line, 0).CombinedOutput(); err != nil {
		return fmt.Errorf("undisturbed: %w\n%s", err, out)
	}
	whole := time.Since(begun)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	early := 0
	for round := 1; round <= rounds; round++ {
		after := time.Duration(random.Float64() * float64(whole))
		cmd := killable(line, round)
		if err := cmd.Start(); err != nil {
			return err
		}
		time.Sleep(after)
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); err == nil {
			early++
		}
		if err := putBack(); err != nil {
			return err
		}
		out, err := exec.Command("sh", "-eu", check, strconv.Itoa(round)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("round %d of seed %d, killed after %v of %v: %w\n%s", round, seed, after, whole, err, out)
		}
	}
	fmt.Printf("killed %d\nended before %d\n", rounds-early, early)
	return nil
}

func killable(line []string, round int) *exec.Cmd {
	var args []string
	for _, arg := range line[1:] {
		args = append(args, strings.ReplaceAll(arg, "{}", strconv.Itoa(round)))
	}
	return exec.Command(line[0], args...)
}

// putBack waits until the guard of a build in place has restored the container's own
// files. It returns an error after a minute.
func putBack() error {
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(20 * time.Millisecond) {
		_, shErr := os.Stat("/bin/sh")
		_, err := os.Lstat("/.shale-inplace")
		// The directory alone, without a guard, is left to the next build. The check finds
		// files that are missing.
		alone := time.Since(begun) > 10*time.Second
		if shErr == nil && (errors.Is(err, fs.ErrNotExist) || alone) {
			return nil
		}
	}
	var names []string
	for _, dir := range []string{"/", "/.shale-inplace"} {
		list, _ := os.ReadDir(dir)
		for _, e := range list {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return fmt.Errorf("the container's own files are not put back within a minute: %s", strings.Join(names, " "))
}
