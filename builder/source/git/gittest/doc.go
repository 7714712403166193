// Package gittest serves git repositories on the loopback interface, for tests. It
// supports smart HTTP with and without a token, plain files (the "dumb" protocol) and
// ssh. Scripts create the repositories.
package gittest
