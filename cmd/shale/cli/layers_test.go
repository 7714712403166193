package cli

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/runtime/userns"
	"github.com/shale-build/shale/storage"
)

// fakeProbe returns err and counts its calls.
type fakeProbe struct {
	err   error
	times int
}

func (p *fakeProbe) probe(string, bool) (overlay.Features, error) {
	p.times++
	return overlay.Features{}, p.err
}

func refusedFor(cause overlay.Cause, act string, err error) error {
	return errors.Join(&overlay.UnsupportedError{Cause: cause, Release: "5.10.0-46-amd64", Label: "confined_t", Act: act, Err: err})
}

// newLocation returns a Location in a temporary directory. The configuration of the
// machine has no effect on it.
func newLocation(t *testing.T) *storage.Location {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "storage.conf")
	if err := os.WriteFile(conf, []byte("[storage]\ndriver = \"overlay\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_STORAGE_CONF", conf)
	t.Setenv(layersEnv, "")
	dir := t.TempDir()
	l, err := storage.Locate(storage.Options{GraphRoot: filepath.Join(dir, "graph"), RunRoot: filepath.Join(dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestChooseLayers(t *testing.T) {
	info := userns.Info{Mode: userns.ModeFull}
	tooOld := "Linux 5.10.0-46-amd64 has overlays for root only; 5.11 or later is needed"
	if !newLocation(t).UserXattr() {
		tooOld = "Linux 5.10.0-46-amd64 has no volatile overlays; 5.10 or later is needed"
	}
	for _, c := range []struct {
		name   string
		err    error
		reason layersReason
		detail string
	}{
		{name: "works"},
		{
			name: "old kernel", err: refusedFor(overlay.KernelTooOld, "mount an overlay", unix.EPERM),
			reason: "kernel too old", detail: tooOld,
		},
		{
			name: "no module", err: refusedFor(overlay.NoModule, "mount an overlay", unix.ENODEV),
			reason: "module not loaded", detail: "the kernel has no overlay module loaded, and loads none (as root: modprobe overlay)",
		},
		{
			name: "security module", err: refusedFor(overlay.SecurityModule, "mount an overlay", unix.EACCES),
			reason: "security module", detail: `the security module forbids overlays to "confined_t"`,
		},
		{
			name: "no mounts", err: refusedFor(overlay.Refused, "mount an overlay", unix.EPERM),
			reason: "refused", detail: "mounts are refused: operation not permitted",
		},
		{
			name:   "file system",
			err:    refusedFor(overlay.FileSystem, "replace a directory", &os.PathError{Op: "unlinkat", Path: "/some/where", Err: unix.ENOTEMPTY}),
			reason: "file system", detail: "cannot hold an overlay: replace a directory: directory not empty",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLocation(t)
			p := &fakeProbe{err: c.err}
			for range 2 {
				way, err := chooseLayers(l, info, p.probe, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				if way.Native != (c.err != nil) || way.Reason != c.reason || !strings.Contains(way.Detail, c.detail) {
					t.Errorf("got %+v", way)
				}
			}
			// Only a successful probe must be stored.
			if want := map[bool]int{true: 1, false: 2}[c.err == nil]; p.times != want {
				t.Errorf("probed %d times, want %d", p.times, want)
			}
		})
	}
	t.Run("no room to try", func(t *testing.T) {
		l := newLocation(t)
		p := &fakeProbe{err: unix.ENOSPC}
		for range 2 {
			if way, err := chooseLayers(l, info, p.probe, slog.New(slog.DiscardHandler)); err != nil || way.Native {
				t.Errorf("got %+v, %v", way, err)
			}
		}
		if p.times != 2 {
			t.Errorf("probed %d times, want 2", p.times)
		}
	})
}

// TestChooseLayersAgain tests the changes after which a stored result must not be used.
func TestChooseLayersAgain(t *testing.T) {
	l := newLocation(t)
	p := &fakeProbe{}
	choose := func(mode userns.Mode) {
		t.Helper()
		if way, err := chooseLayers(l, userns.Info{Mode: mode}, p.probe, slog.New(slog.DiscardHandler)); err != nil || way.Native {
			t.Fatalf("got %+v, %v", way, err)
		}
	}
	choose(userns.ModeFull)
	choose(userns.ModeSingle)
	choose(userns.ModeSingle)
	memory := filepath.Join(l.GraphRoot(), "shale", probeState)
	text, err := os.ReadFile(memory)
	if err != nil {
		t.Fatal(err)
	}
	release := overlay.KernelRelease()
	if !strings.Contains(string(text), "kernel "+release+"\n") {
		t.Errorf("the kernel is not in %q", text)
	}
	for _, bad := range []string{strings.Replace(string(text), release, "5.10.0", 1), "", string(text[:len(text)-3])} {
		if err := os.WriteFile(memory, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		choose(userns.ModeSingle)
	}
	if p.times != 5 {
		t.Errorf("probed %d times, want 5", p.times)
	}
}

// TestChooseLayersWithoutProbe tests decisions that do not require a probe.
func TestChooseLayersWithoutProbe(t *testing.T) {
	full := userns.Info{Mode: userns.ModeFull}
	mountProgram := func(t *testing.T, l *storage.Location) {
		t.Helper()
		dir := filepath.Join(l.GraphRoot(), "overlay")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, ".has-mount-program"), []byte("true"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		value   string
		info    userns.Info
		prepare func(*testing.T, *storage.Location)
		want    layersReason
		err     string
	}{
		{name: "native", value: "native", info: full, want: reasonAskedFor},
		{name: "overlay", value: "overlay", info: full},
		{name: "other value", value: "fuse", info: full, err: "unknown value"},
		{name: "in place", info: userns.Info{Mode: modeInPlace}, want: reasonInPlace},
		{name: "in place, overlay asked for", value: "overlay", info: userns.Info{Mode: modeInPlace}, want: reasonInPlace},
		{name: "mount program", info: full, prepare: mountProgram, want: reasonMountProgram},
		{name: "mount program, overlay asked for", value: "overlay", info: full, prepare: mountProgram, err: "for a mount program"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLocation(t)
			if c.prepare != nil {
				c.prepare(t, l)
			}
			t.Setenv(layersEnv, c.value)
			p := &fakeProbe{err: unix.EIO}
			way, err := chooseLayers(l, c.info, p.probe, slog.New(slog.DiscardHandler))
			switch {
			case c.err != "":
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
			case err != nil:
				t.Error(err)
			case way.Reason != c.want || way.Native != (c.want != ""):
				t.Errorf("got %+v", way)
			}
			if p.times != 0 {
				t.Error("there was a probe")
			}
		})
	}
}

// TestCheckOwners checks that files are given to another owner if layers are shown
// natively. The file system of the test refuses this to all users except root, as NFS
// does.
func TestCheckOwners(t *testing.T) {
	full, one := userns.Info{Mode: userns.ModeFull}, userns.Info{Mode: "single id"}
	for _, c := range []struct {
		name  string
		info  userns.Info
		way   layersWay
		tried bool
	}{
		{"overlay", full, layersWay{}, false},
		{"file system", full, layersWay{Native: true, Reason: layersReason(overlay.FileSystem)}, true},
		{"old kernel", full, layersWay{Native: true, Reason: layersReason(overlay.KernelTooOld)}, true},
		{"no module", full, layersWay{Native: true, Reason: layersReason(overlay.NoModule)}, true},
		{"asked for", full, layersWay{Native: true, Reason: reasonAskedFor}, true},
		{"single id", one, layersWay{Native: true, Reason: layersReason(overlay.FileSystem)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checkOwners(newLocation(t), c.info, c.way)
			if (err != nil) != (c.tried && os.Geteuid() != 0) || err != nil && !strings.Contains(err.Error(), "--isolation=recorded") {
				t.Errorf("got %v", err)
			}
		})
	}
}
