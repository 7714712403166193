package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/shale-build/shale/tests/kernels/plan"
)

// mounts is the directory in which the file systems for stores are mounted.
const mounts = "/fs"

// disk is a file system for stores. If it cannot be mounted, err is the reason.
type disk struct {
	name string
	// make is a shell script. $1 is the mount point and $2 is a file of 2 GiB for a loop
	// device.
	make string
	err  error
}

var disks = []disk{
	{name: "ext4", make: `mkfs.ext4 -q "$2"; mount -o loop "$2" "$1"`},
	{name: "xfs", make: `mkfs.xfs -q "$2"; mount -o loop "$2" "$1"`},
	{name: "xfs-noftype", make: `mkfs.xfs -q -m crc=0 -n ftype=0 "$2"; mount -o loop "$2" "$1"`},
	{name: "btrfs", make: `mkfs.btrfs -q "$2"; mount -o loop "$2" "$1"`},
	{name: "tmpfs", make: `mount -t tmpfs none "$1"`},
	{name: "overlay", make: `mkdir "$2.d" "$2.d/l" "$2.d/u" "$2.d/w"; mount -t overlay -o "lowerdir=$2.d/l,upperdir=$2.d/u,workdir=$2.d/w" overlay "$1"`},
	{name: "nfs3", make: nfs + `mount -t nfs -o vers=3,nolock "127.0.0.1:$2.d" "$1"`},
	{name: "nfs4", make: nfs + `mount -t nfs -o vers=4.2 "127.0.0.1:$2.d" "$1"`},
}

// nfs is the start of a script. It exports a directory to the machine itself.
const nfs = `mkdir "$2.d"; systemctl start nfs-server; exportfs -o rw,no_root_squash,no_subtree_check,insecure,fsid=$(od -An -N2 -tu2 /dev/urandom | tr -d ' ') "127.0.0.1:$2.d"; ` //nolint:misspell // a program

// makeDisks mounts the file systems of the plan. Each has a directory for each
// environment. If a file system cannot be mounted, only its own cases fail.
func (g *guest) makeDisks() (map[string]disk, error) {
	for _, dir := range []string{mounts, "/var/disks"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	made := map[string]disk{}
	for _, d := range disks {
		if !slices.ContainsFunc(g.plan.Environments, func(e plan.Environment) bool { return slices.Contains(e.Stores, d.name) }) {
			continue
		}
		d.err = g.mount(d)
		made[d.name] = d
	}
	return made, nil
}

func (g *guest) mount(d disk) error {
	point, file := filepath.Join(mounts, d.name), filepath.Join("/var/disks", d.name)
	script := `set -e; mkdir -p "$1"; truncate -s 2G "$2"; ` + d.make + `; chmod 755 "$1"`
	// Run it in a login session, which SELinux confines less than a system service.
	if out, err := session("root", []string{"sh", "-c", script, "sh", point, file}).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for _, e := range g.plan.Environments {
		dir := filepath.Join(point, e.Name)
		script := `mkdir "$1"; [ -z "$2" ] || chown "$2:" "$1"`
		if out, err := session("root", []string{"sh", "-ec", script, "sh", dir, environments[e.Name].user}).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}
