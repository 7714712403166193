//go:build race

package frontend

// raceDetector reports whether the tests run under the race detector.
const raceDetector = true
