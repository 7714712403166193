package sandbox_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shale-build/shale/runtime/sandbox"
	"github.com/shale-build/shale/runtime/userns"
)

func TestDevices(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	mode, gid := os.FileMode(0o640), uint32(0)
	s := shell(root, "for d in /dev/mine /dev/sub/mine /opt/dev; do test -c $d && head -c2 $d | wc -c; done; stat -c '%a %t:%T' /dev/mine")
	s.Devices = []sandbox.Device{
		{HostPath: "/dev/zero", Path: "/dev/mine", Mode: &mode, GID: &gid},
		{HostPath: "/dev/zero", Path: "/dev/sub/mine", Access: "r"},
		{HostPath: "/dev/zero", Path: "/opt/dev"},
	}
	want := "2\n2\n2\n640 1:5\n"
	if entered.Mode != userns.ModeRoot {
		want = strings.Replace(want, "640", "666", 1) // the host's own node
	}
	if diff := cmp.Diff(want, output(t, r, s)); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Lstat(filepath.Join(root, "opt")); !os.IsNotExist(err) {
		t.Errorf("the place of a device is left in the root filesystem: %v", err)
	}
}

func TestDeviceErrors(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	for want, d := range map[string]sandbox.Device{
		"no such file or directory": {HostPath: "/dev/none", Path: "/dev/x"},
		"not a device node":         {HostPath: "/etc/passwd", Path: "/dev/x"},
		"not absolute paths":        {HostPath: "/dev/null", Path: "x"},
	} {
		s := shell(root, "true")
		s.Devices = []sandbox.Device{d}
		if _, _, err := run(t, r, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", d, err, want)
		}
	}
}
