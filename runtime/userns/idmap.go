package userns

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// maxExtents is the number of lines that the kernel accepts since Linux 4.15
// (user_namespaces(7)).
const maxExtents = 340

// IDRange is one line of /etc/subuid: Count ids from Start.
type IDRange struct{ Start, Count uint64 }

// extent is one line of /proc/PID/uid_map.
type extent struct{ inside, outside, count uint64 }

// SubUIDs returns a user's ranges of subordinate user ids from /etc/subuid. If the file
// has none and nsswitch.conf names a source for them, it asks getsubids(1).
func SubUIDs(ctx context.Context, userName string, uid int) []IDRange {
	return subIDs(ctx, "/etc/subuid", nil, userName, uid)
}

// SubGIDs does the same as SubUIDs for group ids and /etc/subgid.
func SubGIDs(ctx context.Context, userName string, uid int) []IDRange {
	return subIDs(ctx, "/etc/subgid", []string{"-g"}, userName, uid)
}

func subIDs(ctx context.Context, file string, flags []string, userName string, uid int) []IDRange {
	if f, err := os.Open(file); err == nil {
		ranges := parseSubIDs(f, userName, uid)
		_ = f.Close() // read only
		if len(ranges) > 0 {
			return ranges
		}
	}
	return askNameService(ctx, flags, userName)
}

// parseSubIDs parses subuid(5). It ignores invalid lines, as newuidmap does.
func parseSubIDs(r io.Reader, userName string, uid int) []IDRange {
	var out []IDRange
	s := bufio.NewScanner(r)
	for s.Scan() {
		fields := strings.Split(strings.TrimSpace(s.Text()), ":")
		if len(fields) != 3 || fields[0] == "" || fields[0] != userName && fields[0] != strconv.Itoa(uid) {
			continue
		}
		if r, ok := parseRange(fields[1], fields[2]); ok {
			out = append(out, r)
		}
	}
	return out
}

func parseRange(start, count string) (IDRange, bool) {
	a, errA := strconv.ParseUint(start, 10, 32)
	n, errN := strconv.ParseUint(count, 10, 32)
	if errA != nil || errN != nil || n == 0 || a+n > 1<<32-1 {
		return IDRange{}, false
	}
	return IDRange{a, n}, true
}

// askNameService asks getsubids, which supports the sources that nsswitch.conf names. Its
// output has lines of the form "0: user start count".
func askNameService(ctx context.Context, flags []string, userName string) []IDRange {
	conf, err := os.ReadFile("/etc/nsswitch.conf")
	if userName == "" || err != nil || !bytes.Contains(conf, []byte("subid")) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "getsubids", append(flags, userName)...).Output() // #nosec G204 -- no shell, the user's own name
	if err != nil {
		return nil
	}
	var ranges []IDRange
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 4 {
			continue
		}
		if r, ok := parseRange(f[2], f[3]); ok {
			ranges = append(ranges, r)
		}
	}
	return ranges
}

// usable returns the ranges that the kernel accepts. It leaves out a range that contains
// the user's own id, because root is mapped to it. It also leaves out a range that
// overlaps an earlier one.
func usable(own int, ranges []IDRange) []IDRange {
	taken := []IDRange{{uint64(own), 1}} // #nosec G115 -- ids are not negative
	var out []IDRange
	for _, r := range ranges {
		if len(taken) == maxExtents {
			break
		}
		if !overlaps(r, taken) {
			taken = append(taken, r)
			out = append(out, r)
		}
	}
	return out
}

func overlaps(r IDRange, taken []IDRange) bool {
	for _, t := range taken {
		if r.Start < t.Start+t.Count && t.Start < r.Start+r.Count {
			return true
		}
	}
	return false
}

// toolMap returns a map as arguments of newuidmap(1). Root is mapped to the user, and the
// ranges follow from id 1.
func toolMap(own int, ranges []IDRange) string {
	var b strings.Builder
	fmt.Fprintf(&b, "0 %d 1", own)
	next := uint64(1)
	for _, r := range usable(own, ranges) {
		fmt.Fprintf(&b, " %d %d %d", next, r.Start, r.Count)
		next += r.Count
	}
	return b.String()
}

// identity returns a map of every usable id to itself, extent by extent: a line of a
// nested map must not span two lines of the parent's map. If one line maps all ids, it is
// split into two. libcontainer and containers/storage take one such line as the sign of
// the machine's initial namespace, and the new namespace is not the initial one.
func identity(m []extent) string {
	var lines []string
	if len(m) == 1 && m[0] == (extent{0, 0, 1<<32 - 1}) {
		m = []extent{{0, 0, 1}, {1, 1, 1<<32 - 2}}
	}
	for _, e := range m {
		lines = append(lines, fmt.Sprintf("%d %d %d", e.inside, e.inside, e.count))
	}
	return strings.Join(lines, ",")
}

func readMap(path string) []extent {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	return parseMap(f)
}

func parseMap(r io.Reader) []extent {
	var out []extent
	s := bufio.NewScanner(r)
	for s.Scan() {
		var e extent
		if _, err := fmt.Sscan(s.Text(), &e.inside, &e.outside, &e.count); err == nil {
			out = append(out, e)
		}
	}
	return out
}

func countIDs(path string) uint64 {
	var n uint64
	for _, e := range readMap(path) {
		n += e.count
	}
	return n
}
