// Package storetest runs tests against real stores and holds the conformance
// suite of the storage adapter: what a build relies on.
//
// Main re-executes the test binary where a store can live: in a user namespace
// with a full map of IDs as an unprivileged user, and, when the tests were started
// by root, as root too. Open makes a store for one test, Pack is a plain packer.
package storetest
