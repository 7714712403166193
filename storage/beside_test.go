package storage

import (
	"archive/tar"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

func TestOwnersBeside(t *testing.T) {
	marked := t.TempDir()
	state := filepath.Join(marked, stateDir)
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	mark := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(state, ownershipFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, root, mark string
		recorded, want   bool
	}{
		{"all ids", "/proc/self", "", false, false},
		{"attributes", marked, ownersRecorded, true, false},
		{"attributes, new", filepath.Join(marked, "a/b"), "", true, false},
		{"no attributes", "/proc/self/none", "", true, true},
		{"once without attributes", marked, ownersAllBeside, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.mark != "" {
				mark(tt.mark)
			}
			l := &Location{opts: Options{Recorded: tt.recorded}, so: types.StoreOptions{GraphRoot: tt.root}}
			if got, err := l.OwnersBeside(); got != tt.want || err != nil {
				t.Errorf("%v, %v; want %v", got, err, tt.want)
			}
		})
	}

	// A store that was once without attributes must not return to the mark for
	// attributes.
	mark(ownersRecorded)
	s := &Store{graphRoot: marked, logger: slog.New(slog.DiscardHandler), recorded: true, beside: true}
	if err := s.checkOwnership(); err != nil {
		t.Fatal(err)
	}
	l := &Location{opts: Options{Recorded: true}, so: types.StoreOptions{GraphRoot: marked}}
	if got, err := l.OwnersBeside(); !got || err != nil {
		t.Errorf("without the mark: %v, %v", got, err)
	}
}

func TestRecordEntry(t *testing.T) {
	file := func(uid int, records map[string]string) *tar.Header {
		return &tar.Header{Name: "f", Typeflag: tar.TypeReg, Uid: uid, Gid: 2, Mode: 0o640, PAXRecords: records}
	}
	for _, tt := range []struct {
		name   string
		owners owners
		header *tar.Header
		want   map[string]string
		lost   string
	}{
		{"attribute", owners{}, file(1, map[string]string{"SCHILY.xattr.user.a": "b"}), map[string]string{"SCHILY.xattr.user.a": "b", "SCHILY.xattr." + ownerRecord: "1:2:0640:file"}, ""},
		{"beside", owners{beside: true}, file(1, nil), nil, ""},
		{"attribute lost", owners{beside: true}, file(1, map[string]string{"SCHILY.xattr.user.a": "b", "SCHILY.xattr.security.capability": "c"}), map[string]string{"SCHILY.xattr.security.capability": "c"}, "user.a of f"},
		{"capability lost", owners{beside: true, noCapabilities: true}, file(1, map[string]string{"SCHILY.xattr.security.capability": "c"}), map[string]string{}, "security.capability of f"},
		{"another's record", owners{beside: true}, file(1, map[string]string{"SCHILY.xattr." + ownerRecord: "0:0:0:file"}), map[string]string{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !tt.owners.record(tt.header) || tt.header.Uid != 0 || tt.header.Gid != 0 {
				t.Errorf("header %+v", tt.header)
			}
			if d := cmp.Diff(tt.want, tt.header.PAXRecords); d != "" || tt.owners.lost != tt.lost {
				t.Errorf("lost %q, records (-want +got):\n%s", tt.owners.lost, d)
			}
		})
	}
}

func TestNamedOwner(t *testing.T) {
	for _, tt := range []struct {
		name         string
		header       tar.Header
		want         NamedOwner
		attr, beside bool
	}{
		{"link", tar.Header{Typeflag: tar.TypeSymlink, Uid: 1, Gid: 2}, NamedOwner{Path: "p", UID: 1, GID: 2}, true, true},
		{"root's link", tar.Header{Typeflag: tar.TypeSymlink}, NamedOwner{Path: "p"}, false, false},
		{"file", tar.Header{Typeflag: tar.TypeReg, Gid: 2}, NamedOwner{Path: "p", GID: 2}, false, true},
		{"directory", tar.Header{Typeflag: tar.TypeDir, Uid: 1}, NamedOwner{Path: "p", UID: 1}, false, true},
		{"another name", tar.Header{Typeflag: tar.TypeLink, Uid: 1}, NamedOwner{Path: "p", UID: 1}, false, false},
		{"root's device", tar.Header{Typeflag: tar.TypeBlock, Devmajor: 8, Devminor: 1}, NamedOwner{Path: "p", Type: unix.S_IFBLK, Rdev: unix.Mkdev(8, 1)}, false, true},
		{"mark", tar.Header{Typeflag: tar.TypeChar, Uid: 1}, NamedOwner{Path: "p", UID: 1, Type: unix.S_IFCHR}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, s := range []*Store{{recorded: true}, {recorded: true, beside: true}} {
				got, ok := s.namedOwner(&tt.header, "p")
				want := tt.attr
				if s.beside {
					want = tt.beside
				}
				if ok != want || ok && got != tt.want {
					t.Errorf("beside %v: %+v, %v; want %+v, %v", s.beside, got, ok, tt.want, want)
				}
			}
		})
	}
}
