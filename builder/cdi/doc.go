// Package cdi finds the devices that RUN --device names.
//
// Files of the Container Device Interface
// (github.com/cncf-tags/container-device-interface) describe devices: the nodes, mounts,
// environment variables and hooks of each device. Registry reads these files and resolves
// names like BuildKit. Edits returns the description of devices as plain data, and an
// error that names the part if this builder does not support a part of it.
//
// Package exec decides whether a step may use a device, and package sandbox adds the
// device to the container.
package cdi
