package userns

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// rangeStart and rangeCount are the defaults of useradd (SUB_UID_MIN and SUB_UID_COUNT in
// login.defs(5)).
const (
	rangeStart = 100000
	rangeCount = 65536
)

// programDirs are the directories in which newuidmap may be installed; PATH may lack
// them.
var programDirs = []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"}

// SubIDsFix returns the fix for a user namespace with one id only: commands with the
// user's name and an unused range of ids. It must be called outside the namespace.
func SubIDsFix(ctx context.Context) string {
	return gather(ctx).fix(programDirs, "/etc/subuid", "/etc/subgid")
}

// fix returns the result of SubIDsFix for the given directories and files.
func (f facts) fix(dirs []string, files ...string) string {
	var todo []string
	if f.newUIDMap == "" || f.newGIDMap == "" {
		todo = append(todo, installTools(dirs))
	}
	if len(usable(f.uid, f.subUIDs)) == 0 || len(usable(f.gid, f.subGIDs)) == 0 {
		todo = append(todo, "run as root: "+f.rangeCommand(files...))
	}
	if len(todo) == 0 {
		return "give newuidmap and newgidmap their set-user-ID bit, or the capabilities cap_setuid and cap_setgid, and run without no-new-privileges"
	}
	return strings.Join(todo, "; ")
}

// installTools returns the advice that makes newuidmap and newgidmap available.
func installTools(dirs []string) string {
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "newuidmap")); err == nil {
			return "add " + dir + " to PATH, where newuidmap and newgidmap are"
		}
	}
	return "install newuidmap and newgidmap (package uidmap; shadow-utils on Fedora and RHEL)"
}

// rangeCommand returns the command that gives the user the first range after all ranges
// in files.
func (f facts) rangeCommand(files ...string) string {
	start := uint64(rangeStart)
	for _, file := range files {
		start = max(start, endOfRanges(file))
	}
	ids := fmt.Sprintf("%d-%d", start, start+rangeCount-1)
	return fmt.Sprintf("usermod --add-subuids %s --add-subgids %s %s", ids, ids, name(f))
}

// endOfRanges returns the first id after all ranges of a file in the format of subuid(5).
// It returns 0 if the file has no ranges.
func endOfRanges(file string) uint64 {
	f, err := os.Open(file) // #nosec G304 -- names are constants
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }() // read only
	var end uint64
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) != 3 {
			continue
		}
		if r, ok := parseRange(fields[1], fields[2]); ok {
			end = max(end, r.Start+r.Count)
		}
	}
	return end
}
