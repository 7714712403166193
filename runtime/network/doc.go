// Package network prepares the network of a build's commands.
//
// A Mode is the choice of the user. Setup makes a Network for it: the host's network, no
// network, or a network namespace for this build, which pasta(1) connects to the host's
// network. Hosts and ResolvConf return the content of the files that belong to a network.
// Package sandbox puts containers into the network.
package network
