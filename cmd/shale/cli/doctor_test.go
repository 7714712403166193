package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/runtime/probe"
	"github.com/shale-build/shale/runtime/recorded"
	"github.com/shale-build/shale/runtime/userns"
)

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		can   bool
		fixes int
		want  string
	}{
		{true, 0, "You can build."},
		{true, 1, "You can build. One thing is missing, which is optional."},
		{true, 2, "You can build. Two things are missing, both optional."},
		{true, 3, "You can build. 3 things are missing, all optional."},
		{false, 1, "You cannot build: why"},
	} {
		if got := verdict(tt.can, "why", tt.fixes); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// TestFixOfLayers checks that the advice matches the cause.
func TestFixOfLayers(t *testing.T) {
	for _, tt := range []struct {
		way  layersWay
		want string
	}{
		{layersWay{}, ""},
		{layersWay{Native: true, Reason: reasonAskedFor}, ""},
		{layersWay{Native: true, Reason: reasonOnOverlay}, "--root"},
		{layersWay{Native: true, Reason: reasonMountProgram}, "mount_program"},
		{layersWay{Native: true, Err: &overlay.UnsupportedError{Cause: overlay.KernelTooOld}}, "Linux 5.11"},
		{layersWay{Native: true, Err: &overlay.UnsupportedError{Cause: overlay.NoModule}}, "modprobe overlay"},
		{layersWay{Native: true, Err: &overlay.UnsupportedError{Cause: overlay.NoModule, Label: "system_u:system_r:initrc_t:s0"}}, "restorecon"},
		{layersWay{Native: true, Err: &overlay.UnsupportedError{Cause: overlay.FileSystem}}, "ext4"},
		{layersWay{Native: true, Err: &overlay.UnsupportedError{Cause: overlay.SecurityModule, Label: "x (enforce)"}}, "x (enforce)"},
		{layersWay{Native: true, Err: &overlay.UnsupportedError{Cause: overlay.Refused}}, "mount(2)"},
	} {
		got := fixOfLayers(tt.way)
		if !strings.Contains(got, tt.want) || (tt.want == "") != (got == "") {
			t.Errorf("%+v: got %q, want %q in it", tt.way, got, tt.want)
		}
	}
}

func TestFixOf(t *testing.T) {
	for _, tt := range []struct {
		err          error
		reason, want string
	}{
		{fmt.Errorf("make: %w", unix.ENOSPC), "make: no space left on device", "inodes"},
		{fmt.Errorf("make: %w", unix.EDQUOT), "make: disk quota exceeded", "quota"},
		{fmt.Errorf("make: %w", unix.EROFS), "make: read-only file system", "--root"},
		{&userns.Error{Step: "unshare", Err: unix.EPERM, Fix: "fix"}, "a user namespace cannot be entered: unshare: operation not permitted", "fix"},
		{&recorded.ProbeError{Probe: "openat2", Err: unix.ENOSYS, Fix: "fix"}, "owners of files cannot be recorded: openat2: function not implemented", "fix"},
		{errors.New("anything\nelse"), "anything else", ""},
	} {
		if got := reasonOf(tt.err); got != tt.reason {
			t.Errorf("got reason %q, want %q", got, tt.reason)
		}
		if got := fixOf(tt.err); !strings.Contains(got, tt.want) || (tt.want == "") != (got == "") {
			t.Errorf("%v: got %q, want %q in it", tt.err, got, tt.want)
		}
	}
}

func TestTrialResults(t *testing.T) {
	for name, tt := range map[string]struct {
		report trialReport
		want   map[string]probe.Status
	}{
		"all well": {
			trialReport{GraphRoot: "/s", OneByOne: true},
			map[string]probe.Status{"layers": probe.OK, "step": probe.OK, "build cache": probe.OK},
		},
		"older kernel": {
			trialReport{GraphRoot: "/s"},
			map[string]probe.Status{"layers": probe.Degraded, "step": probe.OK, "build cache": probe.OK},
		},
		"native": {
			trialReport{GraphRoot: "/s", Native: true},
			map[string]probe.Status{"layers": probe.Degraded, "step": probe.OK, "build cache": probe.OK},
		},
		"no store": {
			trialReport{Step: "why"},
			map[string]probe.Status{"layers": probe.Missing, "step": probe.Missing},
		},
	} {
		t.Run(name, func(t *testing.T) {
			results := tt.report.results()
			for _, r := range results {
				if r.Status != tt.want[r.Name] {
					t.Errorf("%s is %s, want %s", r.Name, r.Status, tt.want[r.Name])
				}
			}
			if len(results) != len(tt.want) {
				t.Errorf("got %v", results)
			}
		})
	}
}
