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
// reads r. Any number of calls may run at once. blob is the digest of the layer's
// published form, "" for none. If r ends with io.EOF, the caller must have verified that
// digest. After an error, no files remain.
func (s *Store) StageTar(ctx context.Context, r io.Reader, blob digest.Digest) (*Staged, error) {
	return s.Stage(ctx, func(ctx context.Context, st Staging) (Diff, error) {
		diff, err := s.unpack(contextReader{ctx, r}, st)
		diff.Blob = blob
		return diff, err
	})
}

// unpack unpacks a layer and writes its tar-split, which has everything that the files do
// not have, in one pass.
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
		// tar-split must also see the zeros after the end of the archive.
		_, err = io.Copy(io.Discard, entries)
	}
	err = errors.Join(err, entries.Close())
	if splitErr := <-done; splitErr != nil && !errors.Is(splitErr, io.ErrClosedPipe) {
		err = splitErr // the cause: the layer could not be read
	}
	// The log has seen all entries only after Close.
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

// measure computes the digest and the size of the bytes that are written to it.
type measure struct {
	digester digest.Digester
	n        int64
}

// Write implements io.Writer.
func (m *measure) Write(p []byte) (int, error) {
	m.n += int64(len(p))
	return m.digester.Hash().Write(p)
}

// owners has the owners that occur in a tar, and the mode of its root directory.
type owners struct {
	uids, gids map[uint32]bool
	root       *os.FileMode
	// beside reports that owners are not recorded in attributes, because the file system
	// has no user attributes. noCapabilities reports that it has no attributes for
	// capabilities either.
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
