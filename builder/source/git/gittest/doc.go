// Package gittest serves git repositories on loopback, for tests: over smart
// HTTP with and without a token, as plain files (the "dumb" protocol), and over
// ssh. Scripts make the repositories.
package gittest
