package cdi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDirs(t *testing.T) {
	for name, tt := range map[string]struct {
		env  map[string]string
		want []string
	}{
		"bare": {nil, nil},
		"home": {map[string]string{"HOME": "/h"}, []string{"/h/.config/cdi"}},
		"xdg":  {map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/c", "XDG_RUNTIME_DIR": "/r"}, []string{"/c/cdi", "/r/cdi"}},
	} {
		want := append([]string{"/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"}, tt.want...)
		got := Dirs(func(n string) (string, bool) { v, ok := tt.env[n]; return v, ok })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// open returns a registry of description files.
func open(t *testing.T, files map[string]string) *Registry {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open([]string{filepath.Join(dir, "missing"), dir})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const two = `cdiVersion: "0.6.0"
kind: "vendor1.com/device"
annotations:
  org.mobyproject.buildkit.device.class: two
containerEdits:
  env: [COMMON=1]
devices:
- name: a
  annotations:
    org.mobyproject.buildkit.device.autoallow: true
  containerEdits:
    env: [FOO=injected]
- name: b
  containerEdits:
    env: [BAR=injected]
`

func TestFind(t *testing.T) {
	r := open(t, map[string]string{"two.yaml": two, "broken.yaml": "kind: ["})
	for name, want := range map[string][]string{
		"vendor1.com/device=a": {"vendor1.com/device=a"},
		"vendor1.com/device":   {"vendor1.com/device=a"},
		"vendor1.com/device=*": {"vendor1.com/device=a", "vendor1.com/device=b"},
		"two":                  {"vendor1.com/device=a", "vendor1.com/device=b"},
		"vendor1.com/device=c": nil,
		"vendor2.com/device":   nil,
		"one":                  nil,
		"":                     nil,
	} {
		if diff := cmp.Diff(want, r.Find(name)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", name, diff)
		}
	}
	if !r.AutoAllowed("vendor1.com/device=a") || r.AutoAllowed("vendor1.com/device=b") || r.AutoAllowed("none") {
		t.Error("the wrong devices are allowed by themselves")
	}
	if err := r.Faults(); err == nil || !strings.Contains(err.Error(), "broken.yaml") {
		t.Errorf("faults are %v", err)
	}
}

func TestEdits(t *testing.T) {
	r := open(t, map[string]string{"two.yaml": two, "full.json": `{"cdiVersion": "0.7.0", "kind": "v.com/full", "devices": [{"name": "x", "containerEdits": {
		"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/null", "permissions": "rw", "fileMode": 384, "uid": 1}, {"path": "/dev/zero"}],
		"mounts": [{"hostPath": "/lib/x", "containerPath": "/usr/lib/x", "options": ["ro", "nosuid", "nodev", "rbind"]},
			{"hostPath": "tmpfs", "containerPath": "/t", "type": "tmpfs", "options": ["size=1m", "mode=0700", "noexec"]}],
		"hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true"], "env": ["A=b"]}],
		"additionalGids": [44]}}]}`})
	if err := r.Faults(); err != nil {
		t.Fatal(err)
	}
	got, err := r.Edits("vendor1.com/device=b", "vendor1.com/device=a", "v.com/full=x")
	if err != nil {
		t.Fatal(err)
	}
	mode, uid := os.FileMode(0o600), uint32(1)
	want := Edits{
		Env:   []string{"COMMON=1", "BAR=injected", "FOO=injected"},
		Nodes: []Node{{HostPath: "/dev/null", Path: "/dev/x", Access: "rw", Mode: &mode, UID: &uid}, {HostPath: "/dev/zero", Path: "/dev/zero"}},
		Mounts: []Mount{
			{HostPath: "/lib/x", Path: "/usr/lib/x", ReadOnly: true, NoSUID: true},
			{Path: "/t", Size: 1 << 20, Mode: 0o700, NoExec: true},
		},
		Hooks:          []Hook{{Name: "createContainer", Path: "/bin/true", Args: []string{"true"}, Env: []string{"A=b"}}},
		AdditionalGIDs: []uint32{44},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := r.Edits("v.com/full=y"); err == nil {
		t.Error("a device that is not there gives something")
	}
}

func TestRefusedEdits(t *testing.T) {
	for want, edits := range map[string]string{
		"intelRdt":                           `"intelRdt": {"closID": "x"}`,
		"netDevices: eth7 cannot be moved":   `"netDevices": [{"hostInterfaceName": "eth7", "name": "eth0"}]`,
		`type "p" is not a device`:           `"deviceNodes": [{"path": "/dev/x", "type": "p"}]`,
		`type "overlay" is not available`:    `"mounts": [{"hostPath": "/x", "containerPath": "/x", "type": "overlay"}]`,
		`option "rshared" is not available`:  `"mounts": [{"hostPath": "/x", "containerPath": "/x", "options": ["rshared"]}]`,
		`option "size=x": invalid size: 'x'`: `"mounts": [{"hostPath": "/x", "containerPath": "/x", "type": "tmpfs", "options": ["size=x"]}]`,
	} {
		r := open(t, map[string]string{"x.json": `{"cdiVersion": "1.1.0", "kind": "v.com/c", "devices": [{"name": "x", "containerEdits": {` + edits + `}}]}`})
		if err := r.Faults(); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if _, err := r.Edits("v.com/c=x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
