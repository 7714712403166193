package main

import (
	"bytes"
	"fmt"
	"io"
)

// initScript is the first process of a machine. It mounts the root file system, the
// kernel modules and the stage, and then starts systemd.
const initScript = `#!/bin/sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
$b mount -t sysfs sys /sys
while read -r m; do $b insmod /modules/$m || echo "insmod $m failed"; done </modules/order
i=0
while [ ! -b /dev/vdc ] && [ $i -lt 300 ]; do $b sleep 0.1; i=$((i+1)); done
$b mount -t ext4 /dev/vda /root
$b mount -t ext4 -o ro /dev/vdb /root/usr/lib/modules
$b mount -t ext4 -o ro /dev/vdc /root/stage
for d in dev sys proc; do $b mount --move /$d /root/$d; done
exec $b switch_root /root /lib/systemd/systemd
`

// archive writes an initial RAM file system in cpio's "newc" format. The format is
// described in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
type archive struct {
	w     io.Writer
	inode int
	err   error
}

// file adds a file. If body is nil, it adds a directory.
func (a *archive) file(name string, mode int, body []byte) {
	const directory, regular = 0o040000, 0o100000
	if body == nil {
		mode |= directory
	} else {
		mode |= regular
	}
	a.inode++
	var out bytes.Buffer
	// The fields are: magic, inode, mode, uid, gid, links, mtime, size, four device
	// numbers, the size of the name, and a check sum that this format does not use.
	fmt.Fprintf(&out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", a.inode, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name)+1, 0)
	out.WriteString(name + "\x00")
	pad(&out)
	out.Write(body)
	pad(&out)
	if a.err == nil {
		_, a.err = a.w.Write(out.Bytes())
	}
}

// close writes the trailer of the archive and returns the first error.
func (a *archive) close() error {
	a.file("TRAILER!!!", 0, []byte{})
	return a.err
}

// pad adds zero bytes until the length is a multiple of four.
func pad(out *bytes.Buffer) {
	for out.Len()%4 != 0 {
		out.WriteByte(0)
	}
}
