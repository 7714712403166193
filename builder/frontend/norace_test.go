//go:build !race

package frontend

// raceDetector says that the tests run under the race detector.
const raceDetector = false
