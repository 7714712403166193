package diff

import (
	"archive/tar"
	"bytes"
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	// xattrRecord is the prefix of PAX records with extended attributes. It comes from
	// star and is used by all tar programs.
	xattrRecord = "SCHILY.xattr."
)

// header is a tar header.
type header tar.Header

// encode returns the header in the form of an archive, with its extended records. Each
// header has its own tar.Writer, because contents and padding do not pass through
// archive/tar.
func (h *header) encode() ([]byte, error) {
	var buf bytes.Buffer
	buf.Grow(512)
	if err := tar.NewWriter(&buf).WriteHeader((*tar.Header)(h)); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// describe creates the header from e.stat. target is the target of a symbolic link.
func (e *entry) describe(target string, xattrs []xattr) error {
	h := &header{
		Format: tar.FormatPAX,
		Name:   e.name,
		Mode:   int64(e.stat.Mode & 0o7777),
		Uid:    int(e.stat.Uid),
		Gid:    int(e.stat.Gid),
		// Whole seconds, as every builder writes them. Most entries then need no extended
		// record.
		ModTime: time.Unix(e.stat.Mtim.Sec, 0),
	}
	switch e.stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, e.stat.Size
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFLNK:
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if e.stat.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor = int64(unix.Major(e.stat.Rdev))
		h.Devminor = int64(unix.Minor(e.stat.Rdev))
	default:
		return fmt.Errorf("file type %#o cannot be kept in an image layer", e.stat.Mode&unix.S_IFMT)
	}
	if len(xattrs) > 0 {
		h.PAXRecords = make(map[string]string, len(xattrs))
		for _, x := range xattrs {
			h.PAXRecords[xattrRecord+x.name] = string(x.value)
		}
	}
	if h.Typeflag != tar.TypeDir && e.stat.Nlink > 1 {
		e.fields = h
	}
	var err error
	e.head, err = h.encode()
	return err
}

// linkTo changes e into a hard link to an earlier entry.
func (e *entry) linkTo(first string) (err error) {
	e.fields.Typeflag = tar.TypeLink
	e.fields.Linkname = first
	e.fields.Size = 0
	e.size, e.data = 0, nil
	e.head, err = e.fields.encode()
	return err
}

// becomeWhiteout changes e into the whiteout of its name.
func (e *entry) becomeWhiteout() error {
	dir, base := path.Split(e.name)
	e.name = dir + whiteoutPrefix + base
	return e.describeMark()
}

// describeMark creates the header of a whiteout. All its values are zero, as in
// containerd since 2.0.
func (e *entry) describeMark() (err error) {
	e.whiteout = true
	e.stat = unix.Stat_t{}
	h := header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: e.name, ModTime: time.Unix(0, 0)}
	e.head, err = h.encode()
	return err
}
