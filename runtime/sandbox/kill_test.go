package sandbox_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shale-build/shale/runtime/sandbox"
)

// If a builder is killed, its containers must end too.
func TestKilledBuilder(t *testing.T) {
	if state := os.Getenv("SANDBOX_TEST_VICTIM"); state != "" {
		r, err := sandbox.New(t.Context(), sandbox.Options{StateDir: state})
		if err != nil {
			t.Fatal(err)
		}
		s := shell(newRootfs(t), "sleep 985 & sleep 985")
		s.ID = "killed"
		fmt.Println("code", exitOf(r, s))
		return
	}
	state := t.TempDir()
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestKilledBuilder$")
	cmd.Env = append(os.Environ(), "SANDBOX_TEST_VICTIM="+state, "SANDBOX_TEST_CHILD=1")
	cmd.Dir = t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for !running("sleep\x00985") {
		if time.Now().After(deadline) {
			t.Error("the container did not start")
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // reports that it was killed
	noProcess(t, "sleep\x00985")
	r, err := sandbox.New(t.Context(), sandbox.Options{StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if e, err := os.ReadDir(state); err != nil || len(e) != 0 {
		t.Errorf("state left: %v, %v", e, err)
	}
	if m, _ := filepath.Glob("/sys/fs/cgroup/*/shale-killed"); len(m) != 0 {
		t.Errorf("cgroups left: %v", m)
	}
}
