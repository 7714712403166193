package userns

// #include <stdlib.h>
// #include "entry.h"
import "C"

import "unsafe"

// earlyFiles are the files and the PATH that an early entry reads.
type earlyFiles struct{ passwd, subUID, subGID, path string }

// earlyPlan returns the plan of an early entry (early.c), and false if there is none.
// Only tests use it, to compare the plan with the one of choose.
func earlyPlan(files earlyFiles, uid, gid int) (plan, facts, bool) {
	var owned []*C.char
	text := func(s string) *C.char {
		c := C.CString(s)
		owned = append(owned, c)
		return c
	}
	defer func() {
		for _, c := range owned {
			C.free(unsafe.Pointer(c))
		}
	}()
	var maps C.struct_shale_userns_maps
	if C.shale_userns_plan(text(files.passwd), text(files.subUID), text(files.subGID), text(files.path),
		C.uid_t(uid), C.gid_t(gid), &maps) == 0 {
		return plan{}, facts{}, false
	}
	p := plan{
		mode: ModeFull, how: "helper", tools: true,
		uidMap: C.GoString(&maps.umap[0]), gidMap: C.GoString(&maps.gmap[0]),
	}
	return p, facts{newUIDMap: C.GoString(&maps.utool[0]), newGIDMap: C.GoString(&maps.gtool[0])}, true
}
