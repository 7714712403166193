// Package kaniko understands the command line of kaniko's executor: its flags,
// its environment and the files it reads and writes.
//
// Parse turns arguments into a Command, whose Prepare gives what the builder and
// the registry client take (a Plan) and whose Write leaves the files that scripts
// read. What has a counterpart is mapped to it, what asks for something that holds
// in any case is accepted in silence, and what can have no meaning here is
// accepted with a warning, unknown flags among them. Entering namespaces, opening
// the store and showing progress is the caller's business.
package kaniko
