package storetest_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/storetest"
)

// entries returns a tar. Regular files have the content "evil".
func entries(t *testing.T, list ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range list {
		if h.Mode == 0 {
			h.Mode = 0o777
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len("evil"))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte("evil")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}

func hard(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}
func directory(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name} }

func regular(name string) tar.Header { return tar.Header{Name: name} }

// The layers of this test try to reach files outside of their directory: the canary,
// which is a directory beside the store, the layer below, and the store itself.
func TestHostileLayers(t *testing.T) {
	up := strings.Repeat("../", 40)
	for _, recorded := range []bool{false, true} {
		t.Run(fmt.Sprintf("recorded %t", recorded), func(t *testing.T) {
			canary := t.TempDir()
			write(t, filepath.Join(canary, "file"), "good")
			before := look(t, canary)
			roots := storetest.NewRoots(t)
			s, err := storage.Open(storage.Options{GraphRoot: roots.Graph, RunRoot: roots.Run, Recorded: recorded})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closeStore(t, s) })
			base := create(t, s, "", file("below", "good"))
			baseBefore := look(t, filepath.Join(s.GraphRoot(), "overlay", base.ID, "diff"))
			for name, list := range map[string][]tar.Header{
				"parent directory":           {regular("../evil"), regular("a/../../evil")},
				"far up":                     {regular(up + canary + "/evil")},
				"absolute":                   {regular(canary + "/evil"), regular(canary + "/file")},
				"through a link":             {link("l", canary), regular("l/evil"), regular("l/file")},
				"through a relative link":    {link("l", up+canary), regular("l/evil"), regular("l/file")},
				"through two links":          {link("a", "b"), link("b", canary), regular("a/evil"), directory("a/d")},
				"over a link":                {link("l", canary+"/file"), regular("l")},
				"a directory over a link":    {link("l", canary), directory("l"), regular("l/evil")},
				"a link over a directory":    {directory("d"), link("d", canary), regular("d/evil")},
				"a directory's late mode":    {directory("d"), link("d", canary), directory("d/")},
				"hard link out":              {hard("h", canary+"/file"), regular("h")},
				"hard link up":               {hard("h", up+canary+"/file"), regular("h")},
				"hard link through a link":   {link("l", canary), hard("h", "l/file"), regular("h")},
				"hard link to a link":        {link("l", canary+"/file"), hard("h", "l"), regular("h")},
				"hard link to itself":        {hard("h", "h")},
				"whiteout of all":            {regular(".wh.."), regular("d/.wh..")},
				"whiteout of the parent":     {regular(".wh..."), regular("d/.wh...")},
				"whiteout of nothing":        {regular(".wh.")},
				"whiteout through a link":    {link("l", canary), regular("l/.wh.file")},
				"opaque through a link":      {link("l", canary), regular("l/.wh..wh..opq")},
				"whiteout with a slash":      {regular(".wh.../../below")},
				"devices":                    {{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}, {Typeflag: tar.TypeBlock, Name: "disk", Devmajor: 8}},
				"a device over a link":       {link("l", canary+"/file"), {Typeflag: tar.TypeFifo, Name: "l"}},
				"one name many times":        {regular("n"), directory("n"), link("n", canary), {Typeflag: tar.TypeFifo, Name: "n"}, regular("n"), directory("n/d")},
				"the root as a link":         {link("./", canary), regular("evil")},
				"the root as a file":         {regular(".")},
				"the owner of the root":      {{Typeflag: tar.TypeDir, Name: "./", Uid: 1234, Gid: 2345, Mode: 0o711}},
				"no name":                    {directory("/"), directory("..")},
				"a record as an attribute":   {{Name: "f", PAXRecords: map[string]string{"SCHILY.xattr.user.containers.override_stat": "1:1:04777:block-8-0"}}},
				"overlay's own attributes":   {{Typeflag: tar.TypeDir, Name: "d", PAXRecords: map[string]string{"SCHILY.xattr.user.overlay.redirect": "/" + up + canary}}, regular("d/f")},
				"a path of 100 kB":           {regular(strings.Repeat("d/", 50000) + "f")},
				"a name of 300 bytes":        {regular(strings.Repeat("n", 300))},
				"a file of negative times":   {{Name: "f", ModTime: time.Unix(-1<<40, 0), Format: tar.FormatPAX}},
				"a link of a thousand kinds": slices.Repeat([]tar.Header{link("l", canary), directory("l"), regular("l/x"), hard("l/h", "l/x")}, 250),
			} {
				t.Run(name, func(t *testing.T) {
					data := entries(t, list...)
					l, err := s.ImportLayer(t.Context(), base.ID, digest.FromBytes(data), bytes.NewReader(data))
					if err == nil {
						// It must be possible to make a layer on it.
						if _, err := s.CreateLayer(t.Context(), l.ID, file("above", name)); err != nil {
							t.Errorf("a layer on it: %v", err)
						}
					} else if len(err.Error()) > 8192 {
						t.Errorf("an error of %d bytes: %.200s", len(err.Error()), err)
					}
					if after := look(t, canary); after != before {
						t.Errorf("outside is now\n%sbefore\n%s(%v)", after, before, err)
					}
					if after := look(t, filepath.Join(s.GraphRoot(), "overlay", base.ID, "diff")); after != baseBefore {
						t.Errorf("the layer below is now\n%sbefore\n%s(%v)", after, baseBefore, err)
					}
					for _, dir := range []string{s.GraphRoot(), filepath.Dir(s.GraphRoot()), filepath.Join(s.GraphRoot(), "overlay"), filepath.Join(s.GraphRoot(), "shale", "staging")} {
						if _, err := os.Lstat(filepath.Join(dir, "evil")); !errors.Is(err, os.ErrNotExist) {
							t.Errorf("%s has evil: %v", dir, err)
						}
					}
				})
			}
			checkNothingStaged(t, s)
		})
	}
}

// look returns a description of a directory and its entries.
func look(t *testing.T, dir string) string {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range append([]string{"."}, nameList(names)...) {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		content, _ := os.ReadFile(filepath.Join(dir, name)) // empty for a directory
		fmt.Fprintf(&b, "%s %o %d:%d links %d, %d bytes, %d.%d %q\n", name, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim.Sec, st.Mtim.Nsec, content)
	}
	return b.String()
}

func nameList(entries []os.DirEntry) []string {
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}
