package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shale-build/shale/tests/kernels/plan"
)

// machine boots m and passes the results of its guest program to r.
func (o options) machine(ctx context.Context, m machine, r *recorder) error {
	cache := filepath.Join(o.cache, "kernels")
	kernel, err := m.linux(ctx, cache)
	if err != nil {
		return err
	}
	root, err := m.root(ctx, cache)
	if err != nil {
		return err
	}
	server, stop, err := outside(ctx)
	if err != nil {
		return err
	}
	defer stop() //nolint:errcheck // nothing is under way
	if m.userns && !o.short {
		if err := parser(ctx, cache, filepath.Join(o.stage, m.arch)); err != nil {
			return err
		}
	}
	stage, err := o.stageImage(ctx, m, server)
	if err != nil {
		return err
	}
	defer os.Remove(stage) //nolint:errcheck // below the stage, which the caller removes
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	p := parts{
		kernel: kernel.file("vmlinuz"), initrd: kernel.file("initrd"), modules: kernel.file("modules.ext4"),
		root: root, stage: stage, ssh: o.ssh, log: filepath.Join(o.stage, m.name+".log"),
	}
	out, cmd, err := m.start(ctx, p)
	if err != nil {
		return err
	}
	ended := false
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var result plan.Result
		if err := json.Unmarshal(scanner.Bytes(), &result); err != nil {
			return errors.Join(fmt.Errorf("read a result %q: %w", scanner.Text(), err), cmd.Cancel(), cmd.Wait())
		}
		if result.Done {
			if ended = result.Passed; !ended {
				err = errors.New(result.Why)
			}
			// Kill the machine, because powering off takes longer.
			_ = cmd.Process.Kill()
			continue
		}
		r.add(result)
	}
	waited := cmd.Wait()
	if ended {
		return nil
	}
	console, _ := os.ReadFile(p.log)
	return fmt.Errorf("the machine ended before its tests did: %v\n%s", errors.Join(err, scanner.Err(), waited, ctx.Err()), console[max(0, len(console)-4000):]) //nolint:errorlint // there may be none
}

// stageImage makes the file system image with the programs, the cases and the plan.
func (o options) stageImage(ctx context.Context, m machine, server string) (string, error) {
	p := plan.Plan{Run: o.run, Outside: server}
	var err error
	if p.Environments, err = m.environments(o.short); err != nil {
		return "", err
	}
	dir := filepath.Join(o.stage, m.arch)
	data, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, plan.File), data, 0o644); err != nil {
		return "", err
	}
	if err := label(dir, "system_u:object_r:bin_t:s0"); err != nil {
		return "", err
	}
	file := filepath.Join(o.stage, m.name+".ext4")
	return file, image(ctx, file, dir, "2G")
}
