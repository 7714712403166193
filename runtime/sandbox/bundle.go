package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// bundle creates the container's bundle directory, in which hooks find the container's
// description in config.json, and puts its path into the state that hooks read. The
// command's environment variables are left out, because some of them are secret and
// config.json is a file on disk. release removes the directory.
func (r *Runner) bundle(id string, cfg *configs.Config, oci *specs.Spec) (release func() error, err error) {
	dir := filepath.Join(r.stateDir, id+".bundle")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	release = func() error { return os.RemoveAll(dir) }
	public, process := *oci, *oci.Process
	process.Env = nil
	public.Process = &process
	data, err := json.Marshal(public)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("write bundle: %w", err)
	}
	cfg.Labels = []string{"bundle=" + dir}
	return release, nil
}
