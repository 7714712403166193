package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// act is an operation that steps do in an overlay.
type act struct {
	name string
	do   func(*scene) error
}

// stepActs are the operations that fail on some file systems although the overlay could
// be mounted. A directory cannot be replaced if the file system has no d_type (xfs with
// ftype=0) or no extended attributes (tmpfs before Linux 6.6). No file can be deleted if
// it has no devices.
var stepActs = []act{
	{"delete a file", deleteFile},
	{"replace a directory", replaceDir},
	{"rename a file", renameFile},
	{"rename a directory", renameDir},
	{"link to a file", linkFile},
	{"keep an attribute", keepAttribute},
	{"set a set-user-ID bit", setIDBit},
}

func deleteFile(s *scene) error {
	if err := os.Remove(s.merged("gone")); err != nil {
		return err
	}
	return absent(s.merged("gone"))
}

// replaceDir does "rm -r d; mkdir d". The new directory must be opaque.
func replaceDir(s *scene) error {
	dir := s.merged("d")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	left, err := os.ReadDir(dir)
	if err == nil && len(left) > 0 {
		err = errors.New("the new directory shows deleted files")
	}
	return err
}

func renameFile(s *scene) error {
	if err := os.Rename(s.merged("renamed"), s.merged("new name")); err != nil {
		return err
	}
	if _, err := os.Lstat(s.merged("new name")); err != nil {
		return err
	}
	return absent(s.merged("renamed"))
}

// renameDir renames a directory of a lower layer. Without redirect_dir every overlay
// returns EXDEV, so renameDir then does the same as mv(1): it renames a new directory to
// the name that it deleted.
func renameDir(s *scene) error {
	if err := os.Rename(s.merged("moved"), s.merged("elsewhere")); err != nil {
		if !errors.Is(err, unix.EXDEV) {
			return err
		}
		if err := os.Remove(s.merged("moved")); err != nil {
			return err
		}
	}
	if err := os.Mkdir(s.merged("made"), 0o700); err != nil {
		return err
	}
	return os.Rename(s.merged("made"), s.merged("moved"))
}

// linkFile does not compare inode numbers. Without attributes in trusted.* an overlay may
// show different numbers for the two names until it is mounted again.
func linkFile(s *scene) error {
	if err := os.Link(s.merged("linked"), s.merged("second name")); err != nil {
		return err
	}
	if err := os.WriteFile(s.merged("second name"), []byte("written"), 0o600); err != nil {
		return err
	}
	got, err := os.ReadFile(s.merged("linked"))
	if err == nil && string(got) != "written" {
		err = errors.New("the link is another file")
	}
	return err
}

// keepAttribute checks that the overlay copies up the largest extended attribute that the
// file system stores, and that it can be set.
func keepAttribute(s *scene) error {
	if s.xattr == nil {
		return nil // the file system has none, with or without an overlay
	}
	if err := os.Chmod(s.merged("attr"), 0o640); err != nil { //nolint:gosec // copies the file up
		return err
	}
	got := make([]byte, len(s.xattr))
	n, err := unix.Lgetxattr(s.merged("attr"), xattrName, got)
	if err != nil {
		return fmt.Errorf("of %d bytes: %w", len(s.xattr), err)
	}
	if !bytes.Equal(got[:n], s.xattr) {
		return fmt.Errorf("of %d bytes: it has another value", len(s.xattr))
	}
	if err := unix.Lsetxattr(s.merged("attr"), xattrName, s.xattr, 0); err != nil {
		return fmt.Errorf("of %d bytes: %w", len(s.xattr), err)
	}
	return nil
}

func setIDBit(s *scene) error {
	if err := os.Chmod(s.merged("attr"), 0o755|os.ModeSetuid); err != nil {
		return err
	}
	st, err := os.Lstat(s.merged("attr"))
	if err == nil && st.Mode()&os.ModeSetuid == 0 {
		err = errors.New("the bit is not kept")
	}
	return err
}

// absent returns an error if path exists.
func absent(path string) error {
	_, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err == nil:
		return errors.New("the deleted name is still there")
	}
	return err
}
