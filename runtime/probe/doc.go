// Package probe finds out which kernel features an unprivileged builder may use on this
// machine.
//
// Each probe tries the feature itself; if that leaves traces, it does so in a child
// process. Versions and settings are not enough: a security module or an outer container
// may refuse a feature that the kernel has. A Result describes one feature and the fix if
// it is missing. Mode returns the way to build that follows from all results. Package
// overlay probes file systems.
package probe
