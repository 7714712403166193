// Package probe finds out what the machine lets an unprivileged builder do.
//
// Every probe tries the thing itself, in a child where it leaves something
// behind, because versions and switches do not tell what a security module or
// an enclosing container refuses. A Result says what holds and how to mend
// what does not; Mode says which way of building follows. File systems
// are probed by package overlay.
package probe
