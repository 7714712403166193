package storage

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	cstorage "go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/chrootarchive"
)

// In a user namespace of one id a layer is unpacked with all its files root's, and
// each file's owner is written down beside it: in the attribute that
// containers/storage has for it (ownerRecord), or, for what can have none, in the
// layer's tar-split, where it stands anyway. The tar is rewritten on its way to the
// library, which then unpacks and confines as ever.

// ErrOwnership is wrapped when a store's layers were unpacked with another set of
// ids than there is now.
var ErrOwnership = errors.New("layers were made with another set of ids")

const ownershipFile = "ownership"

// checkOwnership keeps layers whose owners are recorded apart from those whose files
// have their owners: neither can be told from the other by looking at files, so
// mixing them would give wrong images.
func (s *Store) checkOwnership() error {
	dir, err := s.StateDir(".")
	if err != nil {
		return err
	}
	mark := filepath.Join(dir, ownershipFile)
	_, err = os.Lstat(mark)
	marked := err == nil
	if marked == s.recorded {
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
		return fmt.Errorf("open store %s: %w: it was filled without subordinate ids, so that owners are recorded beside the files; build with --isolation=recorded, or use another store with --root", s.GraphRoot(), ErrOwnership)
	case s.recorded:
		return os.WriteFile(mark, []byte("recorded\n"), 0o600)
	}
	return os.Remove(mark)
}

// hasOtherOwners tells whether a layer has files that are not root's.
func (s *Store) hasOtherOwners() (bool, error) {
	layers, err := s.lib.Layers()
	if err != nil {
		return false, fmt.Errorf("list layers: %w", err)
	}
	other := func(id uint32) bool { return id != 0 }
	return slices.ContainsFunc(layers, func(l cstorage.Layer) bool {
		return slices.ContainsFunc(l.UIDs, other) || slices.ContainsFunc(l.GIDs, other)
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
		if !record(h) {
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

// record makes an entry root's, with its owner in an attribute. It reports false
// for one that is left out.
func record(h *tar.Header) bool {
	h.Xattrs = nil //nolint:staticcheck // stands in PAXRecords too
	maps.DeleteFunc(h.PAXRecords, func(k, _ string) bool {
		return k == paxXattr+ownerRecord || len(k) > len(paxSparse) && k[:len(paxSparse)] == paxSparse
	})
	info := h.FileInfo().Mode()
	device := h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock
	if device && h.Devmajor == 0 && h.Devminor == 0 {
		return false // overlayfs would take it for a deletion
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse, tar.TypeDir, tar.TypeChar, tar.TypeBlock: //nolint:staticcheck // old archives have it
		if h.Uid == 0 && h.Gid == 0 && !device {
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

// NamedOwner is a file that can have no attribute, and its owner.
type NamedOwner struct {
	Path     string
	UID, GID uint32
}

// NamedOwners lists the symbolic links and FIFOs of a layer that are not root's, by
// path. They stand in the layer's tar-split; what was found there once is kept in a
// file.
func (s *Store) NamedOwners(id string) ([]NamedOwner, error) {
	dir, err := s.StateDir("owners")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, id+".json")
	if list, err := readNamedOwners(file); err == nil {
		return list, nil
	}
	list, err := s.findNamedOwners(id)
	if err != nil {
		return nil, fmt.Errorf("find owners in layer %s: %w", short(id), err)
	}
	if err := writeNamedOwners(file, list); err != nil {
		s.logger.Warn("owners of links are not remembered", "layer", short(id), "error", err)
	}
	return list, nil
}

func (s *Store) findNamedOwners(id string) ([]NamedOwner, error) {
	r, err := s.openHeaders(id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	list := []NamedOwner{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, err
		}
		if (h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeFifo) && (h.Uid != 0 || h.Gid != 0) {
			list = append(list, NamedOwner{Path: h.Name, UID: uint32(h.Uid), GID: uint32(h.Gid)})
		}
	}
}
