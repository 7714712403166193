package storage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/vbatts/tar-split/archive/tar"
	"github.com/vbatts/tar-split/tar/asm"
	tarsplit "github.com/vbatts/tar-split/tar/storage"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/chrootarchive"
	"go.podman.io/storage/pkg/tarlog"
	"golang.org/x/sys/unix"
)

// StageTar unpacks the uncompressed tar of a layer into a staging directory while it
// is read. Any number may do so at once. blob is the digest of the form it was
// published in, which the caller has verified when r ends with io.EOF; "" for none.
// On error nothing remains.
func (s *Store) StageTar(ctx context.Context, r io.Reader, blob digest.Digest) (*Staged, error) {
	return s.Stage(ctx, func(ctx context.Context, st Staging) (Diff, error) {
		diff, err := s.unpack(contextReader{ctx, r}, st)
		diff.Blob = blob
		return diff, err
	})
}

// unpack unpacks a layer and notes what its files do not have, all in one pass.
func (s *Store) unpack(r io.Reader, st Staging) (_ Diff, err error) {
	if st.flat {
		return Diff{}, errComposefs
	}
	recipe, err := s.tempFile()
	if err != nil {
		return Diff{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, recipe.Close())
		}
	}()
	lines := bufio.NewWriterSize(recipe, 64<<10)
	sum := &measure{digester: digest.Canonical.Digester()}
	found := &owners{uids: map[uint32]bool{}, gids: map[uint32]bool{}, beside: s.beside}
	log, err := tarlog.NewLogger(found.note)
	if err != nil {
		return Diff{}, fmt.Errorf("take apart the layer: %w", err)
	}
	entries, done, err := asm.NewInputTarStreamWithDone(io.TeeReader(r, io.MultiWriter(sum, log)), tarsplit.NewJSONPacker(lines), tarsplit.NewDiscardFilePutter())
	if err != nil {
		return Diff{}, errors.Join(fmt.Errorf("take apart the layer: %w", err), log.Close())
	}
	if s.recorded {
		if s.beside {
			_, err := unix.Getxattr(st.Upper, capability, nil)
			found.noCapabilities = errors.Is(err, unix.ENOTSUP)
		}
		err = found.unpack(entries, st.Upper, st.options.WhiteoutFormat)
	} else if err = chrootarchive.UntarUncompressed(entries, st.Upper, &st.options); err == nil {
		// Zeros behind the end, which tar-split wants to see.
		_, err = io.Copy(io.Discard, entries)
	}
	err = errors.Join(err, entries.Close())
	if splitErr := <-done; splitErr != nil && !errors.Is(splitErr, io.ErrClosedPipe) {
		err = splitErr // what the layer could not be read for
	}
	// Only then has it seen all.
	if err := errors.Join(err, log.Close()); err != nil {
		return Diff{}, fmt.Errorf("unpack the layer: %w", explainOwners(err, found))
	}
	s.warnLost(found.lost)
	if err := lines.Flush(); err != nil {
		return Diff{}, fmt.Errorf("write tar-split: %w", err)
	}
	if _, err := recipe.Seek(0, io.SeekStart); err != nil {
		return Diff{}, fmt.Errorf("rewind tar-split: %w", err)
	}
	return Diff{
		DiffID: sum.digester.Digest(), Size: sum.n, TarSplit: recipe, RootMode: found.root,
		UIDs: slices.Sorted(maps.Keys(found.uids)), GIDs: slices.Sorted(maps.Keys(found.gids)),
	}, nil
}

// measure computes digest and size of what is written to it.
type measure struct {
	digester digest.Digester
	n        int64
}

// Write implements io.Writer.
func (m *measure) Write(p []byte) (int, error) {
	m.n += int64(len(p))
	return m.digester.Hash().Write(p)
}

// owners are those that occur in a tar, with the mode of its root.
type owners struct {
	uids, gids map[uint32]bool
	root       *os.FileMode
	// beside: owners are not recorded in attributes, for the file system has none
	// that are the user's. noCapabilities: it has none for capabilities either.
	beside, noCapabilities bool
	// lost is the first attribute of a file that is not kept, "" for none.
	lost string
}

func (o *owners) note(h *tar.Header) {
	if strings.HasPrefix(path.Base(h.Name), archive.WhiteoutPrefix) {
		return
	}
	o.uids[uint32(h.Uid)], o.gids[uint32(h.Gid)] = true, true
	if h.Typeflag == tar.TypeDir && path.Clean("/"+h.Name) == "/" {
		mode := h.FileInfo().Mode()
		o.root = &mode
	}
}
