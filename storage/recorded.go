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

// In a user namespace of one id a layer is unpacked with all its files root's, and
// each file's owner is written down beside it: in the attribute that
// containers/storage has for it (ownerRecord), or, for what can have none, in the
// layer's tar-split, where it stands anyway. The tar is rewritten on its way to the
// library, which then unpacks and confines as ever. Where the file system has no user
// attributes (NFS 3, tmpfs before Linux 6.6), the tar-split
// is where all owners stand, and the builder is told of them (NamedOwners).

// ErrOwnership is wrapped when a store's layers were unpacked with another set of
// ids than there is now.
var ErrOwnership = errors.New("layers were made with another set of ids")

// ownershipFile marks a store whose owners are recorded. Its content says where.
const (
	ownershipFile   = "ownership"
	ownersRecorded  = "recorded\n"
	ownersAllBeside = "recorded beside\n"
)

// checkOwnership keeps layers whose owners are recorded apart from those whose files
// have their owners: neither can be told from the other by looking at files, so
// mixing them would give wrong images.
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
		// Layers had attributes once. What they said stands in the tar-splits.
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

// hasOtherOwners reports whether a layer of the store itself has files that are not
// root's.
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

// unpack unpacks a tar whose owners become records, and reads it to its end.
// format is how deleted names are marked.
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
	// tar-split hands out the last of the archive's bytes too.
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

// record makes an entry root's, with its owner in an attribute unless that is kept
// beside. It reports false for one that is left out.
func (o *owners) record(h *tar.Header) bool {
	h.Xattrs = nil //nolint:staticcheck // stands in PAXRecords too
	maps.DeleteFunc(h.PAXRecords, func(k, _ string) bool {
		return k == paxXattr+ownerRecord || strings.HasPrefix(k, paxSparse) || o.lose(h.Name, k)
	})
	info := h.FileInfo().Mode()
	device := h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock
	if device && h.Devmajor == 0 && h.Devminor == 0 {
		return false // overlayfs would take it for a deletion
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

// lose reports whether a record of an entry is an attribute that the file system does
// not take, and notes the first.
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

// warnLost says once which attributes of an image its files do not have here. Layers
// that are passed on as they are have them, from the tar-split.
func (s *Store) warnLost(lost string) {
	if lost == "" {
		return
	}
	s.warnOnce.Do(func() {
		s.logger.Warn("the file system of the store takes not all attributes that files of images have: what a step copies or changes loses them; another store (--root) keeps them",
			"store", s.GraphRoot(), "first", lost)
	})
}

// NamedOwner is what is recorded of a file outside of its attributes.
type NamedOwner struct {
	Path     string
	UID, GID uint32
	// Type is S_IFCHR or S_IFBLK for a file that stands for a device, else 0, and
	// Rdev the number of the device.
	Type uint32 `json:",omitempty"`
	Rdev uint64 `json:",omitempty"`
}

// OwnersBeside reports whether the owners of all files are recorded outside of their
// attributes.
func (s *Store) OwnersBeside() bool { return s.beside }

// NamedOwners lists the symbolic links and FIFOs of a layer that are not root's, by
// path; with OwnersBeside, all files. They stand in the layer's tar-split; what was
// found there once is kept in a file.
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
	// Of entries with the same name the last one counts.
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

// namedOwner is what NamedOwners has of an entry. ok is false for one that it leaves
// out.
func (s *Store) namedOwner(h *tar.Header, name string) (o NamedOwner, ok bool) {
	o = NamedOwner{Path: name, UID: uint32(h.Uid), GID: uint32(h.Gid)}
	owned := h.Uid != 0 || h.Gid != 0
	switch h.Typeflag {
	case tar.TypeSymlink, tar.TypeFifo:
		return o, owned
	case tar.TypeLink:
		return o, false // the file's other name has it
	case tar.TypeChar, tar.TypeBlock:
		o.Type, o.Rdev = unix.S_IFCHR, unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		if h.Typeflag == tar.TypeBlock {
			o.Type = unix.S_IFBLK
		}
		return o, s.beside && o.Rdev != 0
	}
	return o, s.beside && owned && !strings.HasPrefix(path.Base(name), archive.WhiteoutPrefix)
}
