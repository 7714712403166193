// Package storetest is the conformance suite of the storage adapter: what a
// build relies on, run against a real store in a real user namespace.
package storetest
