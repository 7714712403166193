package storage

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	cstorage "go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/chrootarchive"
	"golang.org/x/sys/unix"
)

// In a user namespace with only one id, all files of a layer belong to root. The owner of
// each file is recorded beside it, in the attribute that containers/storage has for this
// purpose (ownerRecord). Some files, for example symbolic links, cannot have that
// attribute; their owners are only in the layer's tar-split, which has all owners in any
// case. The tar is rewritten on its way to the library, which then unpacks and confines
// it as usual. If the file system has no user attributes (NFS 3, tmpfs before Linux 6.6),
// all owners are only in the tar-split, and the builder gets them from NamedOwners.

// ErrOwnership is wrapped if the layers of a store were unpacked with another set of ids
// than the present one.
var ErrOwnership = errors.New("layers were made with another set of ids")

// ownershipFile marks a store whose owners are recorded. Its content says whether they
// are in attributes or only in the tar-splits.
const (
	ownershipFile   = "ownership"
	ownersRecorded  = "recorded\n"
	ownersAllBeside = "recorded beside\n"
)

// checkOwnership returns ErrOwnership if the store has recorded owners and the process
// uses native ones, or the other way round. The files of the two kinds of layers look
// alike, so mixing them would give wrong images.
func (s *Store) checkOwnership() error {
	dir, err := s.StateDir(".")
	if err != nil {
		return err
	}
	mark := filepath.Join(dir, ownershipFile)
	content, err := os.ReadFile(mark)
	want, marked := ownersRecorded, err == nil
	if s.beside {
		want = ownersAllBeside
	}
	switch {
	case marked && s.recorded && s.beside && string(content) != want:
		// Earlier layers have their owners in attributes too, but the tar-splits have
		// them all.
		return os.WriteFile(mark, []byte(want), 0o600)
	case marked == s.recorded:
		return nil
	}
	others, err := s.hasOtherOwners()
	if err != nil {
		return err
	}
	switch {
	case others && s.recorded:
		return fmt.Errorf("open store %s: %w: its files belong to subordinate ids, which this process does not have; use them again, or another store with --root", s.GraphRoot(), ErrOwnership)
	case others:
		return fmt.Errorf("open store %s: %w: it was filled without subordinate ids, so that owners are recorded beside the files; build with --isolation=recorded, use SHALE_ISOLATION=recorded for other commands, or another store with --root", s.GraphRoot(), ErrOwnership)
	case s.recorded:
		return os.WriteFile(mark, []byte(want), 0o600)
	}
	return os.Remove(mark)
}

// hasOtherOwners reports whether a layer of the store, additional stores excluded, has
// files that do not belong to root.
func (s *Store) hasOtherOwners() (bool, error) {
	layers, err := s.lib.Layers()
	if err != nil {
		return false, fmt.Errorf("list layers: %w", err)
	}
	other := func(id uint32) bool { return id != 0 }
	return slices.ContainsFunc(layers, func(l cstorage.Layer) bool {
		return !l.ReadOnly && (slices.ContainsFunc(l.UIDs, other) || slices.ContainsFunc(l.GIDs, other))
	}), nil
}

// unpack unpacks a tar, records its owners, and reads r to its end. format is the form of
// the whiteouts.
func (o *owners) unpack(r io.Reader, dest string, format archive.WhiteoutFormat) error {
	pr, pw := io.Pipe()
	rewritten := make(chan error, 1)
	go func() {
		err := o.rewrite(pw, r)
		_ = pw.CloseWithError(err) // never fails
		rewritten <- err
	}()
	err := chrootarchive.UntarUncompressed(pr, dest, &archive.TarOptions{
		InUserNS: true, WhiteoutFormat: format,
	})
	_ = pr.CloseWithError(err) // never fails
	if rerr := <-rewritten; err == nil || errors.Is(err, io.ErrClosedPipe) {
		err = rerr
	}
	if err != nil {
		return err
	}
	// tar-split also passes on the bytes after the end of the archive.
	_, err = io.Copy(io.Discard, r)
	return err
}

func (o *owners) rewrite(w io.Writer, r io.Reader) error {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out.Close()
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if !o.record(h) {
			continue
		}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
		if _, err := io.Copy(out, in); err != nil { // #nosec G110 -- an image may be as large as it likes
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
}

// record makes root the owner of an entry. It records the entry's own owner in an
// attribute, unless owners are kept only in the tar-split. A device becomes a regular
// file, with the number of the device in the attribute. record returns false for an entry
// that must be left out.
func (o *owners) record(h *tar.Header) bool {
	h.Xattrs = nil //nolint:staticcheck // stands in PAXRecords too
	maps.DeleteFunc(h.PAXRecords, func(k, _ string) bool {
		return k == paxXattr+ownerRecord || strings.HasPrefix(k, paxSparse) || o.lose(h.Name, k)
	})
	info := h.FileInfo().Mode()
	device := h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock
	if device && h.Devmajor == 0 && h.Devminor == 0 {
		return false // overlayfs would read it as a whiteout
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse, tar.TypeDir, tar.TypeChar, tar.TypeBlock: //nolint:staticcheck // old archives have it
		if o.beside || h.Uid == 0 && h.Gid == 0 && !device {
			break
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+ownerRecord] = formatOwner(h.Uid, h.Gid, info, int(h.Devmajor), int(h.Devminor))
	}
	if h.Typeflag != tar.TypeDir && h.Typeflag != tar.TypeSymlink && h.Typeflag != tar.TypeLink && h.Typeflag != tar.TypeFifo {
		h.Typeflag = tar.TypeReg
	}
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	h.Devmajor, h.Devminor = 0, 0
	h.Format = tar.FormatPAX
	return true
}

// lose reports whether a record of an entry is an attribute that the file system does not
// accept. It notes the first such attribute in o.lost.
func (o *owners) lose(name, record string) bool {
	attribute, ok := strings.CutPrefix(record, paxXattr)
	if !ok || !o.beside || !strings.HasPrefix(attribute, "user.") && (attribute != capability || !o.noCapabilities) {
		return false
	}
	if o.lost == "" {
		o.lost = attribute + " of " + name
	}
	return true
}

const capability = "security.capability"

// warnLost warns once that files of images lack attributes here, and names the first one.
// Layers that are passed on unchanged still have these attributes, because the tar-split
// has them.
func (s *Store) warnLost(lost string) {
	if lost == "" {
		return
	}
	s.warnOnce.Do(func() {
		s.logger.Warn("the file system of the store does not take all attributes of the files in images: files that a step copies or changes lose them; another store (--root) keeps them",
			"store", s.GraphRoot(), "first", lost)
	})
}

// NamedOwner is the record of a file's owner outside of the file's attributes. Path is
// relative to the layer's root directory, whose own path is ".".
type NamedOwner struct {
	Path     string
	UID, GID uint32
	// Type is S_IFCHR or S_IFBLK for a file that represents a device, otherwise 0. Rdev
	// is the number of the device.
	Type uint32 `json:",omitempty"`
	Rdev uint64 `json:",omitempty"`
}

// OwnersBeside reports whether the owners of all files are recorded only in the
// tar-splits, because the file system has no user attributes.
func (s *Store) OwnersBeside() bool { return s.beside }

// NamedOwners returns the symbolic links and FIFOs of a layer that do not belong to root,
// sorted by path. If OwnersBeside is true, it returns all such files, and all devices.
// The source is the layer's tar-split; the result is kept in a file for the next call.
func (s *Store) NamedOwners(id string) ([]NamedOwner, error) {
	dir, err := s.StateDir("owners")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, id+".json")
	if s.beside {
		file = filepath.Join(dir, id+".all.json")
	}
	if list, err := readNamedOwners(file); err == nil {
		return list, nil
	}
	list, err := s.findNamedOwners(id)
	if err != nil {
		return nil, fmt.Errorf("find owners in layer %s: %w", short(id), err)
	}
	if err := writeNamedOwners(file, list); err != nil {
		s.logger.Warn("owners in a layer are not remembered", "layer", short(id), "error", err)
	}
	return list, nil
}

func (s *Store) findNamedOwners(id string) ([]NamedOwner, error) {
	r, err := s.openHeaders(id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	// If several entries have the same name, the last one counts.
	found := map[string]NamedOwner{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			list := slices.AppendSeq(make([]NamedOwner, 0, len(found)), maps.Values(found))
			slices.SortFunc(list, func(a, b NamedOwner) int { return strings.Compare(a.Path, b.Path) })
			return list, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if o, ok := s.namedOwner(h, cmp.Or(name, ".")); ok {
			found[name] = o
		} else {
			delete(found, name)
		}
	}
}

// namedOwner returns the record of an entry for NamedOwners. ok is false if NamedOwners
// leaves the entry out.
func (s *Store) namedOwner(h *tar.Header, name string) (o NamedOwner, ok bool) {
	o = NamedOwner{Path: name, UID: uint32(h.Uid), GID: uint32(h.Gid)}
	owned := h.Uid != 0 || h.Gid != 0
	switch h.Typeflag {
	case tar.TypeSymlink, tar.TypeFifo:
		return o, owned
	case tar.TypeLink:
		return o, false // the record is under the file's other name
	case tar.TypeChar, tar.TypeBlock:
		o.Type, o.Rdev = unix.S_IFCHR, unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		if h.Typeflag == tar.TypeBlock {
			o.Type = unix.S_IFBLK
		}
		return o, s.beside && o.Rdev != 0
	}
	return o, s.beside && owned && !strings.HasPrefix(path.Base(name), archive.WhiteoutPrefix)
}
