// Package overlaytest tests whatever mounts an overlay.Mount, and gives tests
// an environment in which mounting is allowed.
//
// Its nouns are an Env (how privileged a test runs), entered with Run, and
// the Suite of what every Mounter has to do alike. It is for tests only and
// knows nothing of layers and images.
package overlaytest
