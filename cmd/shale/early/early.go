// Package early decides, before the Go runtime starts, whether a command line enters
// the namespaces in any case. If it does, package userns enters them immediately, and
// the program does not have to start a second time.
//
// If the package does not understand a command line, the process does not enter early.
// The decision only affects the time that a command takes, never its behaviour.
package early

// #include <stdlib.h>
// #include "early.h"
import "C"

import "unsafe"

// Wanted reports whether the process enters early if it has the command line args.
// args[0] must be the name of the program. Package userns calls the C function; Wanted
// lets tests call it.
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
