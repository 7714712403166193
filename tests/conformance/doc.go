// Package conformance compares builds of shale with an independent reference, BuildKit.
//
// Every directory cases/GROUP/NAME is a case. It holds a Dockerfile, its build context, a
// description (case.json) and BuildKit's result (expect.json). The tests build each case
// with shale and compare the results. With BuildKit as the builder, they record its
// results instead. README.md of this directory describes how to add a case.
package conformance
