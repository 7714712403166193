package export

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testTrees returns one result for each platform. Each has a directory, a link, a file
// with the platform's name and a file that all platforms have.
func testTrees(t *testing.T, ids ...string) Trees {
	t.Helper()
	trees := Trees{Build: Build{Multi: len(ids) > 1}}
	for _, id := range ids {
		root := t.TempDir()
		arch := strings.TrimPrefix(id, "linux/")
		for name, content := range map[string]string{"dir/common": "common", "dir/" + arch: id} {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("dir", filepath.Join(root, "link")); err != nil {
			t.Fatal(err)
		}
		trees.Build.Platforms = append(trees.Build.Platforms, Platform{ID: id})
		trees.Roots = append(trees.Roots, root)
	}
	return trees
}

func listing(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		out = append(out, fmt.Sprintf("%s %s", info.Mode(), strings.TrimPrefix(path, dir+"/")))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFiles(t *testing.T) {
	no, yes := false, true
	split := []string{
		"drwxr-xr-x linux_amd64", "drwxr-xr-x linux_amd64/dir", "-rw-r----- linux_amd64/dir/amd64", "-rw-r----- linux_amd64/dir/common", "Lrwxrwxrwx linux_amd64/link",
		"drwxr-xr-x linux_arm64", "drwxr-xr-x linux_arm64/dir", "-rw-r----- linux_arm64/dir/arm64", "-rw-r----- linux_arm64/dir/common", "Lrwxrwxrwx linux_arm64/link",
	}
	one := []string{"drwxr-xr-x dir", "-rw-r----- dir/amd64", "-rw-r----- dir/common", "Lrwxrwxrwx link"}
	tests := []struct {
		name      string
		platforms []string
		opts      FilesOptions
		want      []string
		err       string
	}{
		{name: "one", platforms: []string{"linux/amd64"}, want: append(one, "-rw-r--r-- old")},
		{name: "one split", platforms: []string{"linux/amd64"}, opts: FilesOptions{Split: &yes}, want: append(split[:5:5], "-rw-r--r-- old")},
		{name: "deleting", platforms: []string{"linux/amd64"}, opts: FilesOptions{Delete: true}, want: one},
		{name: "two", platforms: []string{"linux/amd64", "linux/arm64"}, want: append(split[:10:10], "-rw-r--r-- old")},
		{name: "two deleting", platforms: []string{"linux/amd64", "linux/arm64"}, opts: FilesOptions{Delete: true}, want: split},
		{
			name: "source", platforms: []string{"linux/amd64"}, opts: FilesOptions{Source: "../link/.."},
			want: append(one, "-rw-r--r-- old"),
		},
		{name: "source below", platforms: []string{"linux/amd64"}, opts: FilesOptions{Source: "link"}, want: []string{"-rw-r----- amd64", "-rw-r----- common", "-rw-r--r-- old"}},
		{name: "source missing", platforms: []string{"linux/amd64"}, opts: FilesOptions{Source: "x"}, err: "src=x: no such file or directory"},
		{
			name: "two merged", platforms: []string{"linux/amd64", "linux/arm64"}, opts: FilesOptions{Split: &no},
			// The merge succeeds only if the platforms have no file in common.
			err: "cannot overwrite dir/common from linux/amd64 with linux/arm64 when split option is disabled",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "out")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "old"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			err := testTrees(t, test.platforms...).Files(t.Context(), dir, test.opts)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Fatalf("error %v, want %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, listing(t, dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFilesReplaceWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("safe"), 0o600); err != nil {
		t.Fatal(err)
	}
	// dir has links in the places of a directory and of a file of the result.
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(dir, "dir")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	epoch := time.Unix(1234, 0)
	opts := FilesOptions{Epoch: &Epoch{Time: &epoch}}
	if err := testTrees(t, "linux/amd64").Files(t.Context(), dir, opts); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(outside); err != nil || string(data) != "safe" {
		t.Errorf("a file outside was written to: %q, %v", data, err)
	}
	if left, err := os.ReadDir(filepath.Dir(outside)); err != nil || len(left) != 1 {
		t.Errorf("files were made outside: %v, %v", left, err)
	}
	info, err := os.Stat(filepath.Join(dir, "dir", "common"))
	if err != nil || !info.ModTime().Equal(epoch) {
		t.Errorf("the file has the time %v, %v", info, err)
	}
}

// Without CAP_FSETID, writing to a file clears its set-id bits.
func TestFilesKeepSetIDs(t *testing.T) {
	trees := testTrees(t, "linux/amd64")
	modes := map[string]fs.FileMode{
		"user": 0o755 | fs.ModeSetuid, "group": 0o750 | fs.ModeSetgid, "both": 0o711 | fs.ModeSetuid | fs.ModeSetgid, "sticky": 0o644 | fs.ModeSticky,
	}
	for name, mode := range modes {
		path := filepath.Join(trees.Roots[0], "dir", name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, opts := range []FilesOptions{{}, {Delete: true}} {
		dir := t.TempDir()
		if err := trees.Files(t.Context(), dir, opts); err != nil {
			t.Fatal(err)
		}
		for name, mode := range modes {
			info, err := os.Lstat(filepath.Join(dir, "dir", name))
			if err != nil || info.Mode() != mode {
				t.Errorf("%s has mode %v, %v, want %v", name, info.Mode(), err, mode)
			}
		}
	}
}

func TestTar(t *testing.T) {
	epoch := time.Unix(1234, 0)
	var buf bytes.Buffer
	opts := FilesOptions{Epoch: &Epoch{Time: &epoch}}
	if err := testTrees(t, "linux/amd64", "linux/arm64").Tar(t.Context(), &buf, opts); err != nil {
		t.Fatal(err)
	}
	var got []string
	for tr := tar.NewReader(&buf); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name)
		if h.ModTime.Unix() != 1234 {
			t.Errorf("%s has the time %s", h.Name, h.ModTime)
		}
	}
	want := []string{
		"linux_amd64/", "linux_amd64/dir/", "linux_amd64/dir/amd64", "linux_amd64/dir/common", "linux_amd64/link",
		"linux_arm64/", "linux_arm64/dir/", "linux_arm64/dir/arm64", "linux_arm64/dir/common", "linux_arm64/link",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}
