package userns

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFix(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty := write("empty", "")
	uids := write("subuid", "a:100000:65536\n# comment\nb:300000:10\nbroken\n")
	gids := write("subgid", "a:100000:65536\nb:400000:65536\n")
	write("newuidmap", "")
	all := []IDRange{{Start: 100000, Count: 65536}}
	tools := facts{uid: 1000, gid: 1000, user: "ann", newUIDMap: "/x", newGIDMap: "/x"}
	ranges := facts{uid: 1000, gid: 1000, user: "ann", subUIDs: all, subGIDs: all}
	for name, tt := range map[string]struct {
		facts facts
		dirs  []string
		files []string
		want  string
	}{
		"first range": {tools, nil, []string{empty, filepath.Join(dir, "missing")}, "run as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann"},
		"behind all":  {tools, nil, []string{uids, gids}, "run as root: usermod --add-subuids 465536-531071 --add-subgids 465536-531071 ann"},
		"no name":     {facts{uid: 1000, newUIDMap: "/x", newGIDMap: "/x"}, nil, []string{empty}, "run as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 1000"},
		"no tools":    {ranges, []string{"/nowhere"}, nil, "install newuidmap and newgidmap (package uidmap; shadow-utils on Fedora and RHEL)"},
		"off PATH":    {ranges, []string{"/nowhere", dir}, nil, "add " + dir + " to PATH, where newuidmap and newgidmap are"},
		"both there": {
			facts{uid: 1000, newUIDMap: "/x", newGIDMap: "/x", subUIDs: all, subGIDs: all},
			nil, nil,
			"give newuidmap and newgidmap their set-user-ID bit, or the capabilities cap_setuid and cap_setgid, and run without no-new-privileges",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.facts.fix(tt.dirs, tt.files...); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
