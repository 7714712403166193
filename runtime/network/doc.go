// Package network provides what a build's commands see of the network.
//
// A Mode is what the user asks for; Setup turns it into a Network, which is
// either the host's, none, or a namespace of the build's own joined to the
// outside by pasta(1). Hosts and ResolvConf write the files that go with it.
// Putting a container into the network is for package sandbox.
package network
