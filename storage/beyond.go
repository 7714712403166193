package storage

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// explainOwners returns an error that names the first owner without an id in this user
// namespace, if err is the failure to unpack a layer for that reason (EINVAL). Otherwise
// it returns err. found has the owners that occur in the layer.
func explainOwners(err error, found *owners) error {
	if !strings.Contains(err.Error(), unix.EINVAL.Error()) {
		return err
	}
	for _, kind := range []struct {
		name, file string
		ids        map[uint32]bool
	}{{"user", "/proc/self/uid_map", found.uids}, {"group", "/proc/self/gid_map", found.gids}} {
		extents, readErr := idExtents(kind.file)
		if readErr != nil {
			return err
		}
		for _, id := range sortedIDs(kind.ids) {
			if !slices.ContainsFunc(extents, func(e idExtent) bool { return e.has(id) }) {
				return fmt.Errorf("a file belongs to %s %d, %w; use --isolation=recorded (SHALE_ISOLATION=recorded for other commands than build) with a store of its own (--root)",
					kind.name, id, ErrOwnerBeyond)
			}
		}
	}
	return err
}

func sortedIDs(ids map[uint32]bool) []uint32 {
	list := make([]uint32, 0, len(ids))
	for id := range ids {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}

// idExtent is a range of ids that are mapped in a user namespace.
type idExtent struct{ first, count uint64 }

func (e idExtent) has(id uint32) bool {
	return uint64(id) >= e.first && uint64(id) < e.first+e.count
}

// idExtents reads the ranges of a file like /proc/self/uid_map (user_namespaces(7)).
func idExtents(file string) ([]idExtent, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var list []idExtent
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e idExtent
		var outside uint64
		if _, err := fmt.Sscan(lines.Text(), &e.first, &outside, &e.count); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		list = append(list, e)
	}
	return list, nil
}
