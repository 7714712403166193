package diff

import (
	"bytes"
	"encoding/binary"
)

// Offsets in struct linux_dirent64, see getdents64(2): inode and offset of eight bytes
// each, record length, type, name.
const (
	direntLen  = 16
	direntType = 18
	direntName = 19
)

// appendDirents appends the entries in buf to list, without "." and "..".
func appendDirents(list []dirent, buf []byte) []dirent {
	for len(buf) > direntName {
		length := int(binary.NativeEndian.Uint16(buf[direntLen:]))
		if length <= direntName || length > len(buf) {
			break // not a record; the kernel writes only whole records
		}
		name := buf[direntName:length]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		if s := string(name); s != "" && s != "." && s != ".." {
			list = append(list, dirent{name: s, kind: buf[direntType]})
		}
		buf = buf[length:]
	}
	return list
}
