//go:build e2e

package e2e

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vbatts/tar-split/tar/asm"
	tarsplit "github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"
)

// verifyLayers compares every layer that is recorded in a store with its tar-split,
// without any code of shale. For each file, it compares type, mode, owner, size, content,
// link, device, time and extended attributes. It also checks that there are no other
// files, and that the tar of these files has the digest of the layer. It prints the
// numbers of layers and files. It must run with the ids of the layers' files: as root, or
// in a user namespace with the subordinate ids of the store's user.
func verifyLayers(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: verifylayers GRAPHROOT")
	}
	data, err := os.ReadFile(filepath.Join(args[0], "overlay-layers", "layers.json"))
	if err != nil {
		return err
	}
	var layers []recordedLayer
	if err := json.Unmarshal(data, &layers); err != nil {
		return err
	}
	var errs []error
	seen, files := 0, 0
	for _, l := range layers {
		if l.DiffDigest == "" {
			continue // the layer is still written, or belongs to a container
		}
		n, err := l.verify(args[0])
		if err != nil {
			errs = append(errs, fmt.Errorf("layer %s: %w", l.ID, err))
		}
		seen, files = seen+1, files+n
	}
	fmt.Printf("layers %d\nfiles %d\n", seen, files)
	return errors.Join(errs...)
}

// recordedLayer is an entry of layers.json.
type recordedLayer struct {
	ID         string `json:"id"`
	Parent     string `json:"parent"`
	DiffDigest string `json:"diff-digest"`
	DiffSize   int64  `json:"diff-size"`
}

// verify checks the layer and returns the number of its entries.
func (l recordedLayer) verify(graphRoot string) (int, error) {
	recipe, err := os.Open(filepath.Join(graphRoot, "overlay-layers", l.ID+".tar-split.gz"))
	if err != nil {
		return 0, err
	}
	defer recipe.Close()
	gz, err := gzip.NewReader(recipe)
	if err != nil {
		return 0, fmt.Errorf("read tar-split: %w", err)
	}
	dir := filepath.Join(graphRoot, "overlay", l.ID, "diff")
	// tar-split compares the content of each file with its checksum.
	stream := asm.NewOutputTarStream(tarsplit.NewPathFileGetter(dir), tarsplit.NewJSONUnpacker(gz))
	defer stream.Close()
	sum := sha256.New()
	counted := &byteCount{r: io.TeeReader(stream, sum)}
	v := &layerCheck{dir: dir, named: map[string]bool{".": true}}
	if err := v.entries(tar.NewReader(counted)); err != nil {
		return v.n, err
	}
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return v.n, err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != l.DiffDigest {
		v.fail(".", "digest of the tar is %s, want %s", got, l.DiffDigest)
	}
	if counted.n != l.DiffSize {
		v.fail(".", "size of the tar is %d, want %d", counted.n, l.DiffSize)
	}
	if err := v.noOthers(); err != nil {
		return v.n, err
	}
	return v.n, errors.Join(v.errs...)
}

type byteCount struct {
	r io.Reader
	n int64
}

func (c *byteCount) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// layerCheck compares a layer's files with its tar.
type layerCheck struct {
	dir   string
	named map[string]bool // names in the directory
	n     int
	errs  []error
}

func (v *layerCheck) fail(name, format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...)))
}

func (v *layerCheck) entries(r *tar.Reader) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		v.n++
		name := path.Clean(h.Name)
		for above := name; above != "."; above = path.Dir(above) {
			v.named[above] = true
		}
		v.entry(name, h)
	}
}

func (v *layerCheck) entry(name string, h *tar.Header) {
	base := path.Base(name)
	if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
		// In a store for a mount program, for example fuse-overlayfs, the file has this
		// name.
		if _, err := os.Lstat(filepath.Join(v.dir, name)); err == nil {
			v.named[name] = true
			return
		}
		if base == ".wh..wh..opq" {
			if !v.opaque(path.Dir(name)) {
				v.fail(name, "the directory is not opaque")
			}
			return
		}
		gone := path.Join(path.Dir(name), hidden)
		v.named[gone] = true
		if st, ok := v.stat(gone); ok && (st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0) {
			v.fail(gone, "is not a whiteout")
		}
		return
	}
	st, ok := v.stat(name)
	if !ok {
		return
	}
	types := map[byte]uint32{
		tar.TypeReg: unix.S_IFREG, tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK,
		tar.TypeFifo: unix.S_IFIFO, tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK,
	}
	if h.Typeflag == tar.TypeLink {
		if other, ok := v.stat(path.Clean(h.Linkname)); ok && (other.Ino != st.Ino || other.Dev != st.Dev) {
			v.fail(name, "is not a link to %s", h.Linkname)
		}
		return
	}
	if st.Mode&unix.S_IFMT != types[h.Typeflag] {
		v.fail(name, "has mode %o, want type %q", st.Mode, h.Typeflag)
	}
	if int(st.Uid) != h.Uid || int(st.Gid) != h.Gid {
		v.fail(name, "belongs to %d:%d, want %d:%d", st.Uid, st.Gid, h.Uid, h.Gid)
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		if target, err := os.Readlink(filepath.Join(v.dir, name)); err != nil || target != h.Linkname {
			v.fail(name, "links to %q, want %q", target, h.Linkname)
		}
		return // its mode and time are not significant
	case tar.TypeReg:
		if st.Size != h.Size {
			v.fail(name, "has %d bytes, want %d", st.Size, h.Size)
		}
	case tar.TypeChar, tar.TypeBlock:
		if want := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)); st.Rdev != want {
			v.fail(name, "is device %x, want %x", st.Rdev, want)
		}
	}
	if got, want := st.Mode&0o7777, uint32(h.Mode)&0o7777; got != want && name != "." {
		v.fail(name, "has mode %o, want %o", got, want)
	}
	if got, want := st.Mtim.Sec, h.ModTime.Unix(); got != want && h.Typeflag == tar.TypeReg {
		v.fail(name, "is of %d, want %d", got, want)
	}
	v.attributes(name, h)
}

func (v *layerCheck) attributes(name string, h *tar.Header) {
	for key, want := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok {
			continue
		}
		got := make([]byte, len(want)+64)
		n, err := unix.Lgetxattr(filepath.Join(v.dir, name), attr, got)
		if err != nil {
			v.fail(name, "attribute %s: %v", attr, err)
		} else if attr != "security.capability" && string(got[:n]) != want { // a user namespace shows it in another form
			v.fail(name, "attribute %s is %q, want %q", attr, got[:n], want)
		}
	}
}

func (v *layerCheck) opaque(name string) bool {
	for _, attr := range []string{"user.overlay.opaque", "trusted.overlay.opaque"} {
		value := make([]byte, 8)
		if n, err := unix.Lgetxattr(filepath.Join(v.dir, name), attr, value); err == nil && string(value[:n]) == "y" {
			return true
		}
	}
	return false
}

func (v *layerCheck) stat(name string) (*syscall.Stat_t, bool) {
	info, err := os.Lstat(filepath.Join(v.dir, name))
	if err != nil {
		v.fail(name, "%v", err)
		return nil, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return st, ok
}

// noOthers reports files that are not in the tar. A directory that a step opened for
// writing but did not change may be missing in the tar.
func (v *layerCheck) noOthers() error {
	return filepath.WalkDir(v.dir, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(v.dir, at)
		if err == nil && !v.named[name] && !e.IsDir() {
			v.fail(name, "is not in the tar")
		}
		return err
	})
}
