// Package overlaytest tests implementations that mount an overlay.Mount, and gives tests
// an environment in which they may mount.
//
// Run runs a test in each Env, which describes the privileges of the test. Suite checks
// the behavior that all implementations (Mounter) must share. The package is for tests
// only and does not depend on layers or images.
package overlaytest
