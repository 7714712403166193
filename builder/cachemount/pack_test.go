package cachemount_test

import (
	"archive/tar"
	"bytes"
	"context"
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
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/cachemount"
)

func pack(t *testing.T, dir string) (data []byte, left int) {
	t.Helper()
	var buf bytes.Buffer
	left, err := cachemount.Pack(t.Context(), dir, &buf, nil)
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), left
}

// do fails the test if one of the errors is not nil.
func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestPackUnpack(t *testing.T) {
	from := t.TempDir()
	at := func(name string) string { return filepath.Join(from, name) }
	old := time.Unix(1_600_000_000, 123_456_789)
	do(
		t,
		os.MkdirAll(at("d/empty"), 0o700),
		os.WriteFile(at("d/file"), []byte("content"), 0o640),
		os.WriteFile(at("d/"+strings.Repeat("long", 50)), nil, 0o600),
		os.Link(at("d/file"), at("second")),
		os.Symlink("/etc/passwd", at("link")),
		unix.Mkfifo(at("fifo"), 0o600),
		os.WriteFile(at("program"), []byte("set-id"), 0o755),
		os.Chmod(at("program"), 0o755|fs.ModeSetuid),
		os.Chtimes(at("d/file"), old, old),
		os.Chmod(at("d/empty"), 0o770|fs.ModeSticky),
		os.Chtimes(at("d"), old, old),
	)
	attrs := unix.Setxattr(at("d/file"), "user.color", []byte("blue"), 0) == nil &&
		unix.Setxattr(at("d"), "user.color", []byte("red"), 0) == nil
	want := 2
	if attrs {
		// A builder with one id records an owner, and a device.
		do(
			t, os.WriteFile(at("owned"), []byte("x"), 0o640), os.WriteFile(at("device"), nil, 0o600),
			unix.Setxattr(at("owned"), "user.containers.override_stat", []byte("7:8:0640:file"), 0),
			unix.Setxattr(at("device"), "user.containers.override_stat", []byte("0:0:0600:char-1-3"), 0),
		)
		want++
	}
	data, left := pack(t, from)
	if left != want {
		t.Errorf("%d files are left out, want the FIFO, the set-id program and what stands for a device", left)
	}
	for r := tar.NewReader(bytes.NewReader(data)); attrs; {
		h, err := r.Next()
		do(t, err)
		if h.Name == "owned" {
			if h.Uid != 7 || h.Gid != 8 || len(h.PAXRecords) != 1 { // the only record is the time
				t.Errorf("the recorded owner is packed as %d:%d, %v", h.Uid, h.Gid, h.PAXRecords)
			}
			break
		}
	}
	to := t.TempDir()
	do(t, cachemount.Unpack(t.Context(), bytes.NewReader(data), to, int64(len(data)), nil))

	again, left := pack(t, to)
	if left != 0 || !bytes.Equal(data, again) {
		t.Error("what was unpacked does not give the same again")
	}
	for _, gone := range []string{"fifo", "program"} {
		if _, err := os.Lstat(filepath.Join(to, gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s came along: %v", gone, err)
		}
	}
	info, err := os.Stat(filepath.Join(to, "second"))
	do(t, err)
	if !info.ModTime().Equal(old) || info.Mode() != 0o640 {
		t.Errorf("the file has mode %v and time %v", info.Mode(), info.ModTime())
	}
	if attrs {
		value := make([]byte, 10)
		n, err := unix.Getxattr(filepath.Join(to, "d"), "user.color", value)
		if err != nil || string(value[:n]) != "red" {
			t.Errorf("attribute %q, %v", value[:max(n, 0)], err)
		}
	}
}

// The owner of a link is packed as it is recorded next to the cache mount.
func TestPackLinkOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	do(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o700), os.Symlink("x", filepath.Join(dir, "sub/owned")), os.Symlink("x", filepath.Join(dir, "plain")))
	var x unix.Statx_t
	do(t, unix.Statx(unix.AT_FDCWD, filepath.Join(dir, "sub/owned"), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &x))
	if x.Mask&unix.STATX_BTIME == 0 {
		t.Fatal("the file system knows no time of birth: set TMPDIR to a directory of another")
	}
	list := fmt.Sprintf(`[{"ino":%d,"sec":%d,"nsec":%d,"uid":7,"gid":8}]`, x.Ino, x.Btime.Sec, x.Btime.Nsec)
	do(t, os.WriteFile(cachemount.Links(dir), []byte(list), 0o600))
	data, _ := pack(t, dir)
	got := map[string][2]int{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		do(t, err)
		if h.Typeflag == tar.TypeSymlink {
			got[h.Name] = [2]int{h.Uid, h.Gid}
		}
	}
	if diff := cmp.Diff(map[string][2]int{"sub/owned": {7, 8}, "plain": {os.Getuid(), os.Getgid()}}, got); diff != "" {
		t.Error(diff)
	}
}

// archive returns a tar with the headers. Regular files have their names as content.
func archive(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if h.Uid == 0 {
			h.Uid = os.Getuid()
		}
		h.Gid = os.Getgid()
		do(t, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			_, err := io.WriteString(w, h.Name)
			do(t, err)
		}
	}
	do(t, w.Close())
	return buf.Bytes()
}

func TestUnpackHostile(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	hard := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
	}
	tests := []struct {
		name    string
		headers []tar.Header
		refused bool
		// left are the names in the directory if it is not refused.
		left []string
	}{
		{name: "owner below all", headers: []tar.Header{{Typeflag: tar.TypeReg, Name: "x", Uid: -5, Format: tar.FormatGNU}}, refused: true},
		{name: "owner above all", headers: []tar.Header{{Typeflag: tar.TypeSymlink, Name: "x", Linkname: "y", Uid: 1 << 32}}, refused: true},
		{name: "absolute", headers: []tar.Header{file("/x")}, refused: true},
		{name: "dots", headers: []tar.Header{file("../x")}, refused: true},
		{name: "dots inside", headers: []tar.Header{file("a/../../x")}, refused: true},
		{name: "through a link", headers: []tar.Header{link("l", ".."), file("l/x")}, refused: true},
		{name: "through an absolute link", headers: []tar.Header{link("l", "OUTSIDE"), file("l/x")}, refused: true},
		{name: "over a link", headers: []tar.Header{link("l", "../x"), file("l")}, refused: true},
		{name: "directory over a link", headers: []tar.Header{link("l", ".."), {Typeflag: tar.TypeDir, Name: "l"}}, refused: true},
		{name: "twice", headers: []tar.Header{file("x"), file("x")}, refused: true},
		{name: "hard link out", headers: []tar.Header{hard("h", "../secret")}, refused: true},
		{name: "hard link through a link", headers: []tar.Header{link("l", ".."), hard("h", "l/secret")}, refused: true},
		{name: "hard link to nothing", headers: []tar.Header{hard("h", "none")}},
		{name: "link out", headers: []tar.Header{link("l", "../secret")}, left: []string{"l"}},
		{
			name: "devices and the like",
			headers: []tar.Header{
				{Typeflag: tar.TypeChar, Name: "c", Devmajor: 1, Devminor: 3},
				{Typeflag: tar.TypeBlock, Name: "b", Devmajor: 8},
				{Typeflag: tar.TypeFifo, Name: "f"},
				{Typeflag: tar.TypeReg, Name: "suid", Mode: 0o4755},
				{Typeflag: tar.TypeReg, Name: "sgid", Mode: 0o2755},
				file("ok"),
			},
			left: []string{"ok"},
		},
		{
			name: "capability",
			headers: []tar.Header{{
				Typeflag: tar.TypeReg, Name: "cap", Format: tar.FormatPAX,
				PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "x", "SCHILY.xattr.trusted.x": "y"},
			}},
			left: []string{"cap"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			outside := t.TempDir()
			secret := filepath.Join(outside, "secret")
			dir := filepath.Join(outside, "dir")
			do(t, os.WriteFile(secret, []byte("secret"), 0o600), os.Mkdir(dir, 0o700))
			for i, h := range test.headers {
				test.headers[i].Linkname = strings.ReplaceAll(h.Linkname, "OUTSIDE", outside)
			}
			data := archive(t, test.headers...)
			err := cachemount.Unpack(t.Context(), bytes.NewReader(data), dir, int64(len(data)), nil)
			if (err != nil) != test.refused {
				t.Fatalf("error %v, refused is %v", err, test.refused)
			}
			entries, err := os.ReadDir(outside)
			do(t, err)
			var st unix.Stat_t
			do(t, unix.Stat(secret, &st))
			if len(entries) != 2 || st.Nlink != 1 {
				t.Errorf("outside there is %v, and the secret has %d names", entries, st.Nlink)
			}
			if test.refused {
				return
			}
			var left []string
			entries, err = os.ReadDir(dir)
			do(t, err)
			for _, e := range entries {
				left = append(left, e.Name())
				if n, _ := unix.Lgetxattr(filepath.Join(dir, e.Name()), "security.capability", nil); n > 0 {
					t.Errorf("%s has a capability", e.Name())
				}
			}
			if diff := cmp.Diff(test.left, left); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnpackBounds(t *testing.T) {
	data := archive(t, tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("x", 90)})
	if err := cachemount.Unpack(t.Context(), bytes.NewReader(data), t.TempDir(), int64(len(data))-1, nil); err == nil {
		t.Error("a tar that is longer than it is said to be is unpacked")
	}
	// A file of 1 TiB without data takes a few bytes in GNU tar's sparse PAX format.
	var sparse bytes.Buffer
	w := tar.NewWriter(&sparse)
	content := "0\n" // no data fragments
	do(t, w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: "sparse", Mode: 0o600, Size: 512, Format: tar.FormatPAX,
	}))
	_, err := w.Write(append([]byte(content), make([]byte, 512-len(content))...))
	do(t, err, w.Close())
	raw := gnuSparse(t, "1099511627776", sparse.Bytes())
	err = cachemount.Unpack(t.Context(), bytes.NewReader(raw), t.TempDir(), 1<<20, nil)
	if err == nil || !strings.Contains(err.Error(), "larger than the whole") {
		t.Errorf("a sparse file of 1 TiB: %v", err)
	}
}

// gnuSparse puts a header before a tar, which makes its first file sparse. archive/tar
// cannot write such headers.
func gnuSparse(t *testing.T, size string, data []byte) []byte {
	t.Helper()
	var records strings.Builder
	for _, kv := range [][2]string{
		{"GNU.sparse.major", "1"},
		{"GNU.sparse.minor", "0"},
		{"GNU.sparse.name", "sparse"},
		{"GNU.sparse.realsize", size},
	} {
		text := " " + kv[0] + "=" + kv[1] + "\n"
		n := len(text) + 2 // all lengths have two digits
		records.WriteString(string(rune('0'+n/10)) + string(rune('0'+n%10)) + text)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	do(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "PaxHeaders/sparse", Mode: 0o600, Size: int64(records.Len())}))
	_, err := w.Write([]byte(records.String()))
	do(t, err, w.Flush())
	out := buf.Bytes()
	// Set the type of the entry, and then its checksum (pax(1)).
	out[156] = 'x'
	copy(out[148:156], "        ")
	sum := 0
	for _, b := range out[:512] {
		sum += int(b)
	}
	octal := []byte("0000000")
	for i := 5; i >= 0; i-- {
		octal[i] = byte('0' + sum%8)
		sum /= 8
	}
	octal[6] = 0
	copy(out[148:155], octal)
	return append(out, data...)
}

func TestRestore(t *testing.T) {
	dir := t.TempDir()
	c := cachemount.New(dir)
	asked := 0
	c.Restore = func(_ context.Context, key cachemount.Key, dir string) (bool, error) {
		asked++
		if err := key.Validate(); err != nil {
			t.Error(err)
		}
		return true, os.WriteFile(filepath.Join(dir, "restored"), nil, 0o600)
	}
	seeded := cachemount.Request{ID: "id", Sharing: cachemount.Private, Fill: func(_ context.Context, dir string) error {
		return os.WriteFile(filepath.Join(dir, "seed"), nil, 0o600)
	}}
	a, b := acquire(t, c, seeded), acquire(t, c, seeded)
	if !has(a, "restored") || has(a, "seed") {
		t.Error("the first directory was not restored")
	}
	if has(b, "restored") || !has(b, "seed") {
		t.Error("the second directory was restored, not seeded")
	}
	release(t, a, b)
	release(t, acquire(t, c, seeded))
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	do(t, c.Empty([]string{"id"}))
	a = acquire(t, c, seeded)
	if has(a, "restored") || !has(a, "seed") {
		t.Error("what was to start anew was restored")
	}
	release(t, a)
}

func TestFailedRestoreLeavesNothing(t *testing.T) {
	c := cachemount.New(t.TempDir())
	c.Restore = func(_ context.Context, _ cachemount.Key, dir string) (bool, error) {
		return true, errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o600), errors.New("boom"))
	}
	l := acquire(t, c, cachemount.Request{ID: "id"})
	defer release(t, l)
	if has(l, "half") {
		t.Error("a half restored directory is used")
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(l.Dir), "new-*")); err != nil || len(left) > 0 {
		t.Errorf("%v stays behind, %v", left, err)
	}
}

func TestHold(t *testing.T) {
	c := cachemount.New(t.TempDir())
	release(t, acquire(t, c, cachemount.Request{ID: "id"}))
	if !c.Used(must(c.Find(func(string) bool { return true }))[0].Key) {
		t.Error("what was acquired is not known to be used")
	}
	m := must(c.Find(func(id string) bool { return id == "id" }))[0]
	held, err := c.Hold(t.Context(), m)
	do(t, err)
	if !must(c.List())[0].InUse {
		t.Error("a mount that is held is not listed as in use")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Acquire(ctx, cachemount.Request{ID: "id"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a step came in: %v", err)
	}
	release(t, held)
	user := acquire(t, c, cachemount.Request{ID: "id"})
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Hold(ctx, m); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("held while a step uses it: %v", err)
	}
	release(t, user)
	do(t, c.Empty([]string{"id"}))
	if _, err := c.Hold(t.Context(), m); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a mount that is gone was held: %v", err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestKilledFillIsRemoved(t *testing.T) {
	dir := t.TempDir()
	c := cachemount.New(dir)
	l := acquire(t, c, cachemount.Request{ID: "id"})
	slot := filepath.Dir(l.Dir)
	release(t, l)
	do(t, os.RemoveAll(l.Dir), os.Mkdir(filepath.Join(slot, "new-1"), 0o700))
	release(t, acquire(t, c, cachemount.Request{ID: "id"}))
	if _, err := os.Lstat(filepath.Join(slot, "new-1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a killed process left is still there: %v", err)
	}
}
