package main

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/shale-build/shale/tests/kernels/plan"
)

// machine is a virtual machine: a Debian kernel and its boot parameters.
type machine struct {
	name string
	// arch is Debian's name of the architecture. kernel is the package that depends on
	// the newest kernel of its kind. release is the Debian release with that package.
	arch, kernel, release string
	// module is the security module, as the table names it. cmdline enables it.
	module, cmdline string
	// userns is set if AppArmor in this kernel mediates the creation of user namespaces.
	userns bool
	// labelled is set if the files of the root file system get SELinux labels, so that
	// the policy can be enforced.
	labelled bool
}

const appArmor = "apparmor=1 security=apparmor"

var machines = []machine{
	{name: "5.10-apparmor", arch: "amd64", kernel: "linux-image-amd64", release: "bullseye", module: "AppArmor", cmdline: appArmor},
	{name: "6.1-apparmor", arch: "amd64", kernel: "linux-image-amd64", release: "bookworm", module: "AppArmor", cmdline: appArmor},
	{name: "6.1-selinux", arch: "amd64", kernel: "linux-image-amd64", release: "bookworm", module: "SELinux", cmdline: "selinux=1 security=selinux enforcing=1", labelled: true},
	{name: "6.1-arm64", arch: "arm64", kernel: "linux-image-arm64", release: "bookworm", module: "AppArmor", cmdline: appArmor},
	{name: "6.12-apparmor", arch: "amd64", kernel: "linux-image-6.12-amd64", release: "bookworm", module: "AppArmor", cmdline: appArmor, userns: true},
}

// choose returns the machines with these names, or all machines if there are no names. It
// returns an error if a name is unknown.
func choose(names []string) ([]machine, error) {
	if len(names) == 0 {
		return machines, nil
	}
	var chosen []machine
	for _, name := range names {
		found := false
		for _, m := range machines {
			if m.name == name {
				chosen, found = append(chosen, m), true
			}
		}
		if !found {
			var all []string
			for _, m := range machines {
				all = append(all, m.name)
			}
			return nil, fmt.Errorf("unknown machine %q: want some of %s", name, strings.Join(all, " "))
		}
	}
	return chosen, nil
}

// foreign reports whether the machine's architecture differs from the host's.
func (m machine) foreign() bool { return m.arch != runtime.GOARCH }

// environments returns the environments of the machine with their cases.
func (m machine) environments(short bool) ([]plan.Environment, error) {
	list, err := plan.For(short)
	if err != nil {
		return nil, err
	}
	// The host cannot build images of another architecture, so there are no digests to
	// compare with. The check is for amd64 instead of the host's architecture, because
	// the committed results of a machine must not depend on the host.
	if m.arch != "amd64" {
		for i := range list {
			list[i].Digests = nil
		}
	}
	return list, nil
}
