// Package sshagent lends ssh keys to steps and to git without giving them away.
//
// A Source is what docker's --ssh names: an agent's socket or private keys in
// files, which an agent in this process then holds. Agents listen on a socket
// for as long as the borrower works; over it keys can be listed and used, and
// nothing else: none added, removed or locked, no extension called.
package sshagent
