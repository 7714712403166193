package main

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/shale-build/shale/tests/kernels/plan"
)

// machine is a virtual machine: a kernel of Debian's and how it is booted.
type machine struct {
	name string
	// arch is Debian's name of the processor, kernel the package that depends on
	// the newest of its kind, release where that is.
	arch, kernel, release string
	// module is the security module, for the table, and cmdline what enables it.
	module, cmdline string
	// userns is set if the kernel asks AppArmor about user namespaces.
	userns bool
	// labelled gives the root file system SELinux's labels, and has the policy
	// enforced.
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

// choose returns the machines of these names, all for none.
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

// foreign reports whether the machine's processor is not this one's.
func (m machine) foreign() bool { return m.arch != runtime.GOARCH }

// environments returns the environments of the machine, with their cases.
func (m machine) environments(short bool) ([]plan.Environment, error) {
	list, err := plan.For(short)
	if err != nil {
		return nil, err
	}
	// The host makes no images of another processor to compare with. A machine's
	// committed results do not depend on the host's own, so amd64 is meant.
	if m.arch != "amd64" {
		for i := range list {
			list[i].Digests = nil
		}
	}
	return list, nil
}
