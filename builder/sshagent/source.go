package sshagent

import "strings"

// DefaultID is the ID of the agent when none is said.
const DefaultID = "default"

// Source names an agent and where its keys are.
type Source struct {
	ID string
	// Paths are one agent's socket or files with private keys; none means
	// the socket that SSH_AUTH_SOCK names.
	Paths []string
}

// Parse reads docker's spelling: default|ID[=SOCKET|KEY[,KEY]].
func Parse(value string) Source {
	id, paths, found := strings.Cut(value, "=")
	if id == "" {
		id = DefaultID
	}
	s := Source{ID: id}
	if found && paths != "" {
		s.Paths = strings.Split(paths, ",")
	}
	return s
}
