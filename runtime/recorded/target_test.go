package recorded

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Paths that refer to the thread itself must lead to the directory with its number in the
// builder's /proc, and never above it.
func TestName(t *testing.T) {
	tests := []struct {
		name  string
		dirfd int
		path  string
		want  string
	}{
		{"absolute", unix.AT_FDCWD, "/etc/../x", "/etc/../x"},
		{"working directory", unix.AT_FDCWD, "../x", "7/cwd/../x"},
		{"directory", 5, "x", "7/fd/5/x"},
		{"descriptor", 5, "", "7/fd/5"},
		{"self", 5, "/proc/self/fd/3", "7/fd/3"},
		{"thread", 5, "/proc/thread-self/root/x", "7/root/x"},
		{"back from its root", 5, "/proc/self/root/../x", "7/root/../x"},
		{"out of self", 5, "/proc/self/../1/root", "/proc/self/../1/root"},
		{"out of everything", 5, "/proc/self/fd/.././../../etc", "/proc/self/fd/.././../../etc"},
		{"descriptors", 5, "/dev/fd/3", "7/fd/3"},
		{"out of descriptors", 5, "/dev/fd/../../../etc", "/dev/fd/../../../etc"},
		{"standard output", 5, "/dev/stdout", "7/fd/1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &Supervisor{}
			if got := string(s.name(7, tt.dirfd, []byte(tt.path))); got != tt.want+"\x00" {
				t.Errorf("%q is %q, want %q", tt.path, got, tt.want)
			}
		})
	}
}

func TestLineOf(t *testing.T) {
	text := []byte("Name:\tNSpid:\nGroups:\t" + strings.Repeat("65534 ", 5000) + "\nNSpid:\t7\t1\nSeccomp:\t2")
	for name, want := range map[string]string{"NSpid:": "7\t1", "Name:": "NSpid:"} {
		if got, ok := lineOf(text, name); !ok || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, ok)
		}
	}
	for _, name := range []string{"Seccomp:", "Umask:"} { // incomplete, missing
		if got, ok := lineOf(text, name); ok {
			t.Errorf("%s is %q", name, got)
		}
	}
}

// A step must not fill the builder's memory with lists of groups.
func TestTagsBounded(t *testing.T) {
	var all tags
	for i := range maxTags {
		c := newCreds(uint32(i), 0, make([]uint32, maxGroups))
		if _, err := all.number(tagged{creds: c}); err != nil {
			if !errors.Is(err, unix.EAGAIN) || i == 0 {
				t.Errorf("number %d: %v", i, err)
			}
			if _, err := all.number(tagged{creds: newCreds(0, 0, make([]uint32, maxGroups))}); err != nil {
				t.Errorf("one that is there: %v", err)
			}
			return
		}
	}
	t.Error("no bound")
}
