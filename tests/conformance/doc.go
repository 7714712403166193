// Package conformance holds builds against an independent reference.
//
// Every folder cases/GROUP/NAME is a scenario: a Dockerfile, its context, what
// it shows (case.json) and what BuildKit made of it (expect.json). The tests
// build each with shale and compare; run with another builder behind them they
// record. README.md of this folder tells how to add a scenario.
package conformance
