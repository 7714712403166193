package blobs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// Tar writes an archive of blobs. In an archive, the header with the size comes before
// the content. If the archive is a file, the header is written after the blob, in front
// of it. If the archive is a pipe, a blob of unknown size is first written to a file
// without a name in TempDir. Only the methods of Sink are safe for concurrent use.
type Tar struct {
	// BlobName returns the name of a blob in the archive. If it is nil, Name is used.
	BlobName func(digest.Digest) string
	// TempDir is used if the archive is a pipe.
	TempDir string

	mu   sync.Mutex
	w    io.Writer
	file *os.File // nil for a pipe
	have map[string]bool
}

var _ Sink = (*Tar)(nil)

// NewTar returns a Tar that writes to w.
func NewTar(w io.Writer) *Tar {
	t := &Tar{w: w, have: map[string]bool{}}
	if f, ok := w.(*os.File); ok && rewritable(f) {
		t.file = f
	}
	return t
}

// rewritable reports whether bytes that were written to f can be overwritten.
func rewritable(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_APPEND == 0
}

func (t *Tar) name(d digest.Digest) string {
	if t.BlobName != nil {
		return t.BlobName(d)
	}
	return Name(d)
}

// Has implements Sink.
func (t *Tar) Has(_ context.Context, blob ocispec.Descriptor) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.have[t.name(blob.Digest)], nil
}

// Parallel implements Sink. It returns 1, because the blobs go to one place, and their
// order is part of the result.
func (t *Tar) Parallel() int { return 1 }

// Put implements Sink.
func (t *Tar) Put(_ context.Context, blob ocispec.Descriptor, r io.Reader) (digest.Digest, int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file != nil {
		return t.putInto(blob, r)
	}
	if blob.Digest != "" && blob.MediaType == ocispec.MediaTypeImageLayer {
		// This is a layer as the store has it. If it cannot be read, there is no other
		// form.
		return blob.Digest, blob.Size, t.write(t.name(blob.Digest), 0o444, blob.Size, r)
	}
	return t.putSpooled(blob, r)
}

// putInto writes a blob to a file. After a failure it truncates the file to its former
// size.
func (t *Tar) putInto(blob ocispec.Descriptor, r io.Reader) (_ digest.Digest, _ int64, err error) {
	start, err := t.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return "", 0, fmt.Errorf("write to archive: %w", err)
	}
	defer func() {
		if err != nil {
			_, seekErr := t.file.Seek(start, io.SeekStart)
			err = errors.Join(err, t.file.Truncate(start), seekErr)
		}
	}()
	if _, err := t.file.Write(make([]byte, tarBlock)); err != nil {
		return "", 0, fmt.Errorf("write to archive: %w", err)
	}
	s := newSummed(t.file)
	if err := s.copy(r); err != nil {
		return "", 0, err
	}
	if err := check(blob, s); err != nil {
		return "", 0, err
	}
	name := t.name(s.digest())
	if t.have[name] {
		// The archive already has this blob, but its digest was not known before.
		_, err := t.file.Seek(start, io.SeekStart)
		return s.digest(), s.n, errors.Join(err, t.file.Truncate(start))
	}
	header, err := fileHeader(name, 0o444, s.n)
	if err != nil {
		return "", 0, err
	}
	if _, err := t.file.WriteAt(header, start); err != nil {
		return "", 0, fmt.Errorf("write to archive: %w", err)
	}
	if err := t.pad(s.n); err != nil {
		return "", 0, err
	}
	t.have[name] = true
	return s.digest(), s.n, nil
}

// putSpooled writes a blob to a pipe, through a temporary file. It is for blobs of
// unknown size and for blobs that may end too early.
func (t *Tar) putSpooled(blob ocispec.Descriptor, r io.Reader) (_ digest.Digest, _ int64, err error) {
	spool, err := unnamed(t.TempDir)
	if err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, spool.Close()) }()
	s := newSummed(spool)
	if err := s.copy(r); err != nil {
		return "", 0, err
	}
	if err := check(blob, s); err != nil {
		return "", 0, err
	}
	name := t.name(s.digest())
	if t.have[name] {
		return s.digest(), s.n, nil
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return "", 0, fmt.Errorf("write to archive: %w", err)
	}
	return s.digest(), s.n, t.write(name, 0o444, s.n, spool)
}

func check(blob ocispec.Descriptor, s *summed) error {
	if blob.Digest != "" && (blob.Digest != s.digest() || blob.Size != s.n) {
		return fmt.Errorf("blob %s: %w", blob.Digest, ErrMismatch)
	}
	return nil
}

// Directory writes an entry for a directory.
func (t *Tar) Directory(name string) error {
	header, err := headerOf(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
	if err == nil {
		_, err = t.w.Write(header)
	}
	if err != nil {
		return fmt.Errorf("write %s to archive: %w", name, err)
	}
	return nil
}

// File writes an entry for a file, unless the archive already has one with that name.
func (t *Tar) File(name string, mode int64, data []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.have[name] {
		return nil
	}
	return t.write(name, mode, int64(len(data)), bytes.NewReader(data))
}

// Blob writes data as a blob.
func (t *Tar) Blob(d digest.Digest, data []byte) error { return t.File(t.name(d), 0o444, data) }

// Stream writes an entry of a known size directly from r. After an error the archive is
// unusable.
func (t *Tar) Stream(name string, size int64, r io.Reader) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.write(name, 0o444, size, r)
}

func (t *Tar) write(name string, mode, size int64, r io.Reader) error {
	header, err := fileHeader(name, mode, size)
	if err != nil {
		return err
	}
	if _, err := t.w.Write(header); err != nil {
		return fmt.Errorf("write %s to archive: %w", name, err)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{t.w}, struct{ io.Reader }{r}, make([]byte, copySize))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("write %s to archive: %w", name, err)
	}
	t.have[name] = true
	return t.pad(size)
}

// tarBlock is the size of the blocks of a tar file.
const tarBlock = 512

func (t *Tar) pad(size int64) error {
	if _, err := t.w.Write(make([]byte, -size&(tarBlock-1))); err != nil {
		return fmt.Errorf("write to archive: %w", err)
	}
	return nil
}

// Close writes the end of the archive.
func (t *Tar) Close() error {
	if _, err := t.w.Write(make([]byte, 2*tarBlock)); err != nil {
		return fmt.Errorf("finish archive: %w", err)
	}
	return nil
}

// fileHeader returns a header that depends neither on the time nor on the user.
func fileHeader(name string, mode, size int64) ([]byte, error) {
	return headerOf(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size})
}

// headerOf returns a header of one block. Two tar formats support sizes of 8 GiB and
// more; only GNU's needs no other entry for them.
func headerOf(h tar.Header) ([]byte, error) {
	const limit = 8 << 30
	if h.Size >= limit {
		h.Format = tar.FormatGNU
	}
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(&h); err != nil {
		return nil, fmt.Errorf("write %s to archive: %w", strings.TrimSuffix(h.Name, "/"), err)
	}
	if buf.Len() != tarBlock {
		return nil, fmt.Errorf("write %s to archive: its name is too long", h.Name)
	}
	return buf.Bytes(), nil
}

// unnamed creates a file without a name. The kernel removes it when the process ends for
// any reason.
func unnamed(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir), nil
	}
	// Not every file system supports O_TMPFILE.
	f, err := os.CreateTemp(dir, "blob-")
	if err != nil {
		return nil, fmt.Errorf("make temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("make temporary file: %w", err), f.Close())
	}
	return f, nil
}
