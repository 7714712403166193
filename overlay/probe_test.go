package overlay_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/overlay/overlaytest"
)

func TestProbe(t *testing.T) {
	overlaytest.Run(t, func(t *testing.T, env overlaytest.Env) {
		dir := t.TempDir()
		got, err := overlay.Probe(dir, env.UserXattr)
		must(t, err)
		want := overlay.Features{NewMountAPI: true, LowerdirPlus: true}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		checkEmpty(t, dir)
		for _, act := range overlay.ProbeActs() {
			t.Run("cannot "+act, func(t *testing.T) {
				dir := t.TempDir()
				err := overlay.ProbeRefusing(dir, env.UserXattr, act, unix.EIO)
				e, ok := errors.AsType[*overlay.UnsupportedError](err)
				if !ok || e.Cause != overlay.FileSystem || e.Act != act || !errors.Is(err, unix.EIO) {
					t.Errorf("got %#v", err)
				}
				checkEmpty(t, dir)
			})
		}
		t.Run("disk full", func(t *testing.T) {
			dir := t.TempDir()
			err := overlay.ProbeRefusing(dir, env.UserXattr, overlay.ProbeActs()[0], unix.ENOSPC)
			if _, ok := errors.AsType[*overlay.UnsupportedError](err); ok || !errors.Is(err, unix.ENOSPC) {
				t.Errorf("got %#v", err)
			}
			checkEmpty(t, dir)
		})
		t.Run("left by a killed process", func(t *testing.T) {
			dir := t.TempDir()
			left := filepath.Join(dir, "overlay-probe-1", "l1")
			must(t, os.MkdirAll(left, 0o700))
			then := time.Now().Add(-2 * time.Hour)
			must(t, os.Chtimes(filepath.Dir(left), then, then))
			_, err := overlay.Probe(dir, env.UserXattr)
			must(t, err)
			checkEmpty(t, dir)
		})
		t.Run("elsewhere", func(t *testing.T) {
			dir := t.TempDir()
			if anything, works := overlay.MountElsewhere(dir, env.UserXattr); !anything || !works {
				t.Errorf("got %v, %v", anything, works)
			}
			checkEmpty(t, dir)
		})
		t.Run("on an overlay", func(t *testing.T) {
			merged := t.TempDir()
			m := overlay.Mount{Lower: []string{t.TempDir(), t.TempDir()}, Upper: t.TempDir(), Target: merged, UserXattr: env.UserXattr}
			m.Work = filepath.Join(filepath.Dir(m.Upper), "work")
			must(t, os.Mkdir(m.Work, 0o700))
			must(t, m.Mount())
			defer func() { must(t, overlay.Unmount(merged)) }()
			_, err := overlay.Probe(merged, env.UserXattr)
			if e, ok := errors.AsType[*overlay.UnsupportedError](err); !ok || e.Cause != overlay.FileSystem {
				t.Errorf("got %v", err)
			}
		})
	})
}

// TestProbeCause checks the cause that Probe gives for a refused mount.
func TestProbeCause(t *testing.T) {
	for _, c := range []struct {
		name             string
		release          string
		trusted, nothing bool
		works            bool // an overlay on a tmpfs can be mounted
		err              error
		want             overlay.Cause
	}{
		{name: "user before 5.11", release: "5.10.0-46-amd64", err: unix.EPERM, want: overlay.KernelTooOld},
		{name: "user on 4.18", release: "4.18.0-553.el8", err: unix.EINVAL, want: overlay.KernelTooOld},
		{name: "root on 5.10", release: "5.10.0", trusted: true, err: unix.EINVAL, want: overlay.FileSystem},
		{name: "root before volatile", release: "5.4.0", trusted: true, err: unix.EINVAL, want: overlay.KernelTooOld},
		{name: "no module", release: "6.1.0", err: unix.ENODEV, want: overlay.NoModule},
		{name: "no module on an old kernel", release: "4.18.0", err: unix.ENODEV, want: overlay.NoModule},
		{name: "NFS", release: "6.1.0", err: unix.EINVAL, want: overlay.FileSystem},
		{name: "server refuses", release: "6.1.0", works: true, err: unix.EACCES, want: overlay.FileSystem},
		{name: "forbidden", release: "6.1.0", err: unix.EACCES, want: overlay.SecurityModule},
		{name: "not permitted", release: "6.12.1+", err: unix.EPERM, want: overlay.SecurityModule},
		{name: "no mounts at all", release: "6.1.0", nothing: true, err: unix.EPERM, want: overlay.Refused},
		{name: "no mounts on an old kernel", release: "5.4.0", nothing: true, err: unix.EPERM, want: overlay.Refused},
		{name: "unreadable release", release: "next", err: unix.EINVAL, want: overlay.FileSystem},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			err := overlay.ProbeUnmountable(dir, !c.trusted, c.release, !c.nothing, c.works, c.err)
			e, ok := errors.AsType[*overlay.UnsupportedError](err)
			if !ok || e.Cause != c.want || e.Release != c.release || e.Label != "label" || !errors.Is(err, c.err) {
				t.Errorf("got %#v, want %q", e, c.want)
			}
			checkEmpty(t, dir)
		})
	}
}

func checkEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
