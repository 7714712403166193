// Package explain keeps what the steps of builds were made of, so that a later
// build can say why a step had to run again.
//
// A Fact is one thing that a step's cache key depends on: its command, a
// variable, a file it copies, the result of a step before. Facts holds those of
// one step with a short digest each, never a value. A Store keeps the Facts of a
// step under a slot, which names the step's place in a Dockerfile whatever it
// says: Compare then tells which facts are new, gone or different. Which facts
// there are is decided by package solve.
package explain
