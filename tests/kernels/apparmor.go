package main

import (
	"context"
	"os"
	"path/filepath"
)

// parser copies the AppArmor parser of Debian 13 to the directory apparmor of a stage. It
// is the first parser in Debian that knows rules for user namespaces. Its libraries are
// copied too, because the machines run an older Debian.
func parser(ctx context.Context, cache, stage string) error {
	to := filepath.Join(stage, "apparmor")
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	dir, err := cached(cache, "apparmor-trixie", func(work string) error {
		a, err := newArchives(ctx, filepath.Join(work, "apt"), "trixie", "amd64")
		if err != nil {
			return err
		}
		for _, name := range []string{"apparmor", "libc6", "libgcc-s1", "libstdc++6"} {
			if err := a.unpack(ctx, name, filepath.Join(work, "made")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"etc/apparmor.d/abi", "usr/sbin", "usr/lib/x86_64-linux-gnu", "usr/lib64"} {
		if err := os.MkdirAll(filepath.Join(to, name), 0o755); err != nil {
			return err
		}
		if err := os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(dir, name))); err != nil {
			return err
		}
	}
	return nil
}
