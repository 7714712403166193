package inplace

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A step sees the container's own files below /.shale-inplace. Own must report if it
// changes them.
func TestStepsThatChangeOwnFiles(t *testing.T) {
	cases := map[string]struct {
		do   func(t *testing.T, own string)
		want string
	}{
		"program": {func(t *testing.T, own string) {
			t.Helper()
			must(t, os.WriteFile(filepath.Join(own, "usr/bin/sh"), []byte("#!/bin/evil"), 0o600))
		}, "/usr/bin/sh"},
		"new program": {func(t *testing.T, own string) {
			t.Helper()
			must(t, os.WriteFile(filepath.Join(own, "usr/bin/more"), nil, 0o600))
		}, "/usr/bin/more"},
		"file at the top": {func(t *testing.T, own string) {
			t.Helper()
			must(t, os.WriteFile(filepath.Join(own, "x"), nil, 0o600))
		}, "/x"},
		"mode": {func(t *testing.T, own string) {
			t.Helper()
			must(t, os.Chmod(filepath.Join(own, "etc/passwd"), 0o666))
		}, "/etc/passwd"},
		"times set back": {func(t *testing.T, own string) {
			t.Helper()
			p := filepath.Join(own, "etc/passwd")
			info, err := os.Stat(p)
			must(t, err)
			data, err := os.ReadFile(p)
			must(t, err)
			must(t, os.WriteFile(p, []byte(strings.ToUpper(string(data))), 0o600))
			must(t, os.Chtimes(p, info.ModTime(), info.ModTime()))
		}, "/etc/passwd"},
		"removed": {func(t *testing.T, own string) {
			t.Helper()
			must(t, os.Remove(filepath.Join(own, "etc/passwd")))
		}, "/etc/passwd"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := diskDir(t)
			fillOwn(t, dir)
			must(t, os.WriteFile(filepath.Join(dir, "usr/bin/sh"), []byte("program"), 0o600))
			r := open(t, dir)
			step(t, r, func() { c.do(t, filepath.Join(dir, hidden, ownName)) })
			_, err := r.Own()
			changed, ok := errors.AsType[*ChangedError](err)
			if !ok || !slices.Contains(changed.Paths, c.want) {
				t.Errorf("Own after the step: %v, want %s", err, c.want)
			}
			if err := r.Begin(); !errors.Is(err, changed) {
				t.Errorf("another step: %v", err)
			}
			closed(t, r, dir)
		})
	}
}

// If no caller has received the error, Close returns it.
func TestCloseTellsOfChanges(t *testing.T) {
	dir := diskDir(t)
	fillOwn(t, dir)
	r := open(t, dir)
	step(t, r, func() { must(t, os.Chmod(filepath.Join(dir, hidden, ownName, "etc"), 0o700)) })
	if _, ok := errors.AsType[*ChangedError](r.Close()); !ok {
		t.Error("Close reports nothing")
	}
}

// A log file that receives the output of the build may change.
func TestOpenFilesMayChange(t *testing.T) {
	places(t, fillOwn, func(t *testing.T, p place) {
		log, err := os.OpenFile(filepath.Join(p.dir, "etc/passwd"), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		defer log.Close()
		r := open(t, p.dir)
		step(t, r, func() {
			_, err := log.WriteString("a line")
			must(t, err)
		})
		own(t, r)
		closed(t, r, p.dir)
	})
}

// A step finds the files with logins empty. After the step their content is restored,
// even if the step changed or removed them.
func TestLoginsAreConcealed(t *testing.T) {
	places(t, fillOwn, func(t *testing.T, p place) {
		must(t, os.MkdirAll(filepath.Join(p.dir, "root/.ssh/sub"), 0o700))
		must(t, os.WriteFile(filepath.Join(p.dir, "root/.ssh/key"), []byte("private"), 0o600))
		must(t, os.Symlink(filepath.Join(p.dir, "etc/shadow"), filepath.Join(p.dir, "root/link")))
		before := tree(t, p.dir)
		r := open(t, p.dir, "/store")
		must(t, r.Conceal([]string{
			filepath.Join(p.dir, "root/.ssh"), filepath.Join(p.dir, "root/link"), filepath.Join(p.dir, "nothing"),
			filepath.Join(p.dir, "store/layers"), "/etc/passwd",
		}))
		for range 2 {
			step(t, r, func() {
				for _, name := range []string{"root/.ssh/key", "etc/shadow"} {
					data, err := os.ReadFile(filepath.Join(p.dir, hidden, ownName, name))
					must(t, err)
					if len(data) > 0 {
						t.Errorf("a step reads %q in %s", data, name)
					}
				}
				if data, err := os.ReadFile(filepath.Join(p.dir, "store/layers")); err != nil || len(data) == 0 {
					t.Errorf("what is protected: %q, %v", data, err)
				}
			})
			own(t, r)
			same(t, tree(t, p.dir), before)
		}
		step(t, r, func() {
			own := filepath.Join(p.dir, hidden, ownName)
			must(t, os.Remove(filepath.Join(own, "root/.ssh/key")))
			must(t, unix.Mkfifo(filepath.Join(own, "x"), 0o600))
		})
		if err := r.Close(); err == nil {
			t.Error("Close says nothing of a removed key")
		}
		if data, err := os.ReadFile(filepath.Join(p.dir, "root/.ssh/key")); err != nil || string(data) != "private" {
			t.Errorf("the key afterwards: %q, %v", data, err)
		}
	})
}
