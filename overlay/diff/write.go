package diff

import (
	"context"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// blockSize is the size of a tar block. An archive ends with two empty blocks.
const blockSize = 512

var zeros [2 * blockSize]byte

// layerWriter writes the entries in order to the archive and to the tar-split records.
type layerWriter struct {
	flow  *flow
	out   *stream
	split *tarSplit

	links      map[inode]string
	uids, gids idSet
	files      int
	// padding is the number of bytes from the end of the last contents to the end of
	// their block.
	padding int
}

func (w *layerWriter) run(ctx context.Context) error {
	defer w.out.close()
	for {
		b, ok, err := w.next(ctx)
		if err != nil {
			return err
		}
		if !ok {
			return w.end()
		}
		for i := range b.entries {
			if err := w.entry(&b.entries[i]); err != nil {
				return err
			}
		}
		w.flow.free <- b.slab
	}
}

// next returns the next batch after a reader has filled it. ok is false after the last
// batch.
func (w *layerWriter) next(ctx context.Context) (b *batch, ok bool, err error) {
	select {
	case b, ok = <-w.flow.ordered:
		if !ok {
			return nil, false, nil
		}
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	select {
	case <-b.ready:
		return b, true, nil
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
}

func (w *layerWriter) entry(e *entry) error {
	if err := w.link(e); err != nil {
		return atPath("link", e.name, err)
	}
	if err := w.head(e.head); err != nil {
		return err
	}
	sum, err := w.contents(e)
	if err != nil {
		return atPath("read", e.name, err)
	}
	if e.dir != nil {
		w.flow.dirs.release(e.dir)
		e.dir = nil
	}
	w.files++
	w.uids.add(e.stat.Uid)
	w.gids.add(e.stat.Gid)
	w.padding = int(-e.size & (blockSize - 1))
	return w.split.addFile(e.name, e.size, sum)
}

// link changes an entry into a hard link if its file already is in the archive.
func (w *layerWriter) link(e *entry) error {
	if e.fields == nil || e.whiteout {
		return nil
	}
	id := inodeOf(&e.stat)
	if first, ok := w.links[id]; ok {
		return e.linkTo(first)
	}
	w.links[id] = e.name
	return nil
}

// head writes the rest of the last block and a header.
func (w *layerWriter) head(head []byte) error {
	pad := zeros[:w.padding]
	if err := w.out.write(pad); err != nil {
		return err
	}
	if err := w.out.write(head); err != nil {
		return err
	}
	return w.split.addSegment(pad, head)
}

// contents writes the contents of a file and returns their checksum in the form of
// tar-split.
func (w *layerWriter) contents(e *entry) ([]byte, error) {
	if e.size == 0 {
		return nil, nil
	}
	sum := e.sum
	var err error
	if e.data != nil {
		err = w.out.write(e.data)
	} else {
		sum, err = w.copyFile(e)
	}
	if err != nil {
		return nil, err
	}
	return binary.BigEndian.AppendUint64(nil, sum), nil
}

func (w *layerWriter) copyFile(e *entry) (uint64, error) {
	fd, err := e.reopen()
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	if e.size > prefetchMax {
		return w.out.copyChecked(fd, e.size)
	}
	buf := make([]byte, e.size)
	if err := readFull(fd, buf); err != nil {
		return 0, err
	}
	return updateCRC(0, buf), w.out.write(buf)
}

// end writes the end of the archive.
func (w *layerWriter) end() error {
	pad := zeros[:w.padding]
	if err := w.out.write(pad); err != nil {
		return err
	}
	if err := w.out.write(zeros[:]); err != nil {
		return err
	}
	return w.split.addSegment(pad, zeros[:])
}
