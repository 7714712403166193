package userns

import (
	"os"
	"path/filepath"
	"testing"
)

func TestEarlyPlan(t *testing.T) {
	const (
		passwd = "root:x:0:0::/:/bin/sh\nalice:x:1001:1001:Alice,,,:/home/alice:/bin/sh\n"
		ranges = "bob:100000:65536\nalice:165536:65536\n"
	)
	tests := []struct {
		name                   string
		passwd, subUID, subGID string
		want                   bool
	}{
		{"usual", passwd, ranges, "alice:200000:65536\n", true},
		{"by number", passwd, "1001:165536:65536", ranges, true},
		{"no last newline", passwd, "alice:165536:65536", ranges, true},
		{"comments", passwd, "# alice:1:1\n\n" + ranges, ranges, true},
		{"small range", passwd, "alice:165536:1\n", ranges, true},
		{"last range", passwd, "alice:4294967294:1\n", ranges, true},
		{"two ranges", passwd, ranges + "alice:300000:10\n", ranges, false},
		{"name and number", passwd, ranges + "1001:300000:10\n", ranges, false},
		{"no range", passwd, "bob:100000:65536\n", ranges, false},
		{"no group range", passwd, ranges, "", false},
		{"own id in it", passwd, "alice:1000:65536\n", ranges, false},
		{"empty range", passwd, "alice:165536:0\n", ranges, false},
		{"too far", passwd, "alice:4294967295:1\n", ranges, false},
		{"too large", passwd, "alice:99999999999:1\n", ranges, false},
		{"signed", passwd, "alice:+165536:65536\n", ranges, false},
		{"space", passwd, "alice: 165536:65536\n", ranges, false},
		{"more fields", passwd, "alice:165536:65536:1\n", ranges, false},
		{"fewer fields", passwd, "alice:165536\n", ranges, false},
		{"not an account", "bob:x:1000:1000::/:/bin/sh\n", ranges, ranges, false},
		{"a compatibility entry", "+alice:x:1001:1001::/:/bin/sh\n", "+alice:165536:65536\n", ranges, false},
		{"nameless", ":x:1001:1001::/:/bin/sh\n", ":1:1\n" + ranges, ranges, false},
		{"long line", passwd, string(make([]byte, 5000)) + "\n" + ranges, ranges, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := writeEarlyFiles(t, tt.passwd, tt.subUID, tt.subGID)
			got, tools, ok := earlyPlan(files, 1001, 1001)
			if ok != tt.want {
				t.Fatalf("plan %+v, %v", got, ok)
			}
			if !ok {
				return
			}
			want, err := choose(facts{
				uid: 1001, gid: 1001, user: "alice", newUIDMap: tools.newUIDMap, newGIDMap: tools.newGIDMap,
				subUIDs: subIDs(t.Context(), files.subUID, nil, "alice", 1001),
				subGIDs: subIDs(t.Context(), files.subGID, nil, "alice", 1001),
			}, "")
			if err != nil || got != want {
				t.Errorf("plan %+v, choose has %+v, %v", got, want, err)
			}
			if dir := filepath.Dir(files.subUID); tools.newUIDMap != dir+"/newuidmap" || tools.newGIDMap != dir+"/newgidmap" {
				t.Errorf("tools %+v", tools)
			}
		})
	}
}

func TestEarlyPlanPath(t *testing.T) {
	files := writeEarlyFiles(t, "alice:x:1001:1001::/:/bin/sh\n", "alice:165536:65536\n", "alice:165536:65536\n")
	dir := files.path
	for path, want := range map[string]bool{
		"/nowhere:" + dir: true,
		dir + ":bin":      true,
		"bin:" + dir:      false, // Go refuses relative results
		"":                false,
		"/nowhere":        false,
	} {
		files.path = path
		if _, _, ok := earlyPlan(files, 1001, 1001); ok != want {
			t.Errorf("PATH=%s: %v", path, ok)
		}
	}
	files.path = dir
	if err := os.Chmod(filepath.Join(dir, "newgidmap"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := earlyPlan(files, 1001, 1001); ok {
		t.Error("a tool that cannot be executed was found")
	}
}

func writeEarlyFiles(t *testing.T, passwd, subUID, subGID string) earlyFiles {
	t.Helper()
	dir := t.TempDir()
	files := earlyFiles{passwd: filepath.Join(dir, "passwd"), subUID: filepath.Join(dir, "subuid"), subGID: filepath.Join(dir, "subgid"), path: dir}
	for name, text := range map[string]string{files.passwd: passwd, files.subUID: subUID, files.subGID: subGID} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if err := os.WriteFile(filepath.Join(dir, tool), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return files
}
