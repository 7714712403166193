package sshagent

import "strings"

// DefaultID is the ID of an agent if none is given.
const DefaultID = "default"

// Source names an agent and the location of its keys.
type Source struct {
	ID string
	// Paths are the socket of an agent, or files with private keys. If there are none,
	// the socket is that of SSH_AUTH_SOCK.
	Paths []string
}

// Parse parses a value of docker's --ssh: default|ID[=SOCKET|KEY[,KEY]].
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
