// Package sshagent lets steps and git use ssh keys without access to the private keys.
//
// A Source is a value of docker's --ssh: the socket of an agent, or files with private
// keys, which an agent in this process then holds. Each agent listens on a socket while a
// step or git uses it. Through the socket, keys can be listed and used. Other requests
// are refused: keys cannot be added, removed or locked, and extensions cannot be called.
package sshagent
