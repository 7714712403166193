// Package explain records the inputs of the steps of builds, so that a later build can
// explain why a step ran again.
//
// A Fact is one input of the cache key of a step: its command, a variable, a file that it
// copies, or the result of an earlier step. Facts holds the facts of one step, each with
// a short digest and never with its value.
//
// A Store keeps the Facts of a step under a slot. The slot is the position of the step in
// a Dockerfile and does not depend on the content of the instruction. Compare returns the
// facts that are new, missing or changed. Package solve decides which facts are recorded.
package explain
