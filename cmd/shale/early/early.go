// Package early tells, before the Go runtime starts, whether a command line is
// one that enters the namespaces in any case. Then package userns makes the
// entry at once, and the program need not start twice.
//
// A command line that it does not understand is none of those: what it decides
// costs or saves time, never behaviour.
package early

// #include <stdlib.h>
// #include "early.h"
import "C"

import "unsafe"

// Wanted is what is decided about a command line, the program's name first.
func Wanted(args []string) bool {
	argv := make([]*C.char, len(args)+1)
	for i, arg := range args {
		argv[i] = C.CString(arg)
	}
	defer func() {
		for _, arg := range argv {
			C.free(unsafe.Pointer(arg))
		}
	}()
	return C.shale_userns_wanted(C.int(len(args)), &argv[0]) != 0
}
