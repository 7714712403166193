// Package cdi finds the devices that RUN --device names.
//
// A device is described by files of the Container Device Interface
// (github.com/cncf-tags/container-device-interface): which nodes, mounts,
// variables and hooks belong to it. Registry reads them and answers as
// BuildKit does; what a device brings along is handed over as plain data, and
// what this builder cannot give is refused by name. Who may use a device is
// package exec's question, putting it into the container package sandbox's.
package cdi
