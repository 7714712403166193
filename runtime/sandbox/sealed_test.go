package sandbox

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSealedCannotChange(t *testing.T) {
	f, err := sealed("test", []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v, want %v", err, unix.EPERM)
	}
	if err := f.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate: %v, want %v", err, unix.EPERM)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); !errors.Is(err, unix.EPERM) {
		t.Errorf("change seals: %v, want %v", err, unix.EPERM)
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 100))
	if err != nil || string(got) != "content" {
		t.Errorf("content = %q, %v", got, err)
	}
}
