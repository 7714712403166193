package sandbox

import (
	"bufio"
	"fmt"
	"os"
)

type extent struct{ inside, outside, count uint64 }

func readMap(name string) []extent {
	f, err := os.Open("/proc/self/" + name)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []extent
	for s := bufio.NewScanner(f); s.Scan(); {
		var e extent
		if _, err := fmt.Sscan(s.Text(), &e.inside, &e.outside, &e.count); err == nil {
			out = append(out, e)
		}
	}
	return out
}

func mapped(name string, id uint32) bool {
	for _, e := range readMap(name) {
		if uint64(id) >= e.inside && uint64(id)-e.inside < e.count {
			return true
		}
	}
	return false
}

// inInitialUserNS reports whether the process is in the initial user namespace, in which
// root is the machine's root and can open devices through device nodes. Only the initial
// user namespace can map all ids in one line.
func inInitialUserNS() bool {
	m := readMap("uid_map")
	return len(m) == 1 && m[0] == extent{0, 0, 1<<32 - 1}
}
