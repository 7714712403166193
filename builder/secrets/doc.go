// Package secrets keeps the secrets of one build: values that steps and
// sources may use and that must appear nowhere afterwards.
//
// A Source says where a value comes from, as docker's --secret does; a Store
// reads each value once, when it is first asked for, and keeps it in memory. A
// Mask takes values out of what a step prints. Putting a value in front of a
// step, as a file or a variable, is left to package exec.
package secrets
