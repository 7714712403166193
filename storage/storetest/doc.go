// Package storetest runs tests with real stores. It also holds the conformance suite of
// the storage adapter, which tests everything that a build relies on.
//
// Main executes the test binary again in places where a store can be. An unprivileged
// user gets a user namespace with a full map of ids. If root started the tests, they also
// run as root. Open makes a store for one test. Pack is a simple packer.
package storetest
