package diff

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

const (
	chunkSize = 1 << 20
	// firstChunk is the size of the first chunk, which is enough for most layers.
	// Allocating a full chunk takes longer than the rest of the work for a small layer.
	firstChunk = 64 << 10
	// chunks limits how far the slowest of hash, checksum and output may be behind.
	chunks = 8
)

// chunk is a piece of the archive. Several goroutines share it.
type chunk struct {
	buf   []byte
	n     int
	users atomic.Int32
}

// stream is an archive that is being written. All bytes go to the hash and to the output,
// each on its own goroutine.
type stream struct {
	ctx   context.Context //nolint:containedctx // lives as long as one Pack
	cur   *chunk
	free  chan *chunk
	sinks []chan *chunk
	crc   chan crcJob
	hash  hash.Hash
	size  int64
}

// newStream starts the goroutines in group. They end after close is called or ctx ends.
func newStream(ctx context.Context, group *errgroup.Group, output io.Writer) *stream {
	s := &stream{ctx: ctx, free: make(chan *chunk, chunks), crc: make(chan crcJob, chunks), hash: sha256.New()}
	for range chunks {
		s.free <- &chunk{}
	}
	s.feed(group, s.hash)
	if output != nil {
		s.feed(group, output)
	}
	group.Go(s.checksum)
	return s
}

// feed starts a goroutine that writes all chunks to w.
func (s *stream) feed(group *errgroup.Group, w io.Writer) {
	in := make(chan *chunk, chunks)
	s.sinks = append(s.sinks, in)
	group.Go(func() error {
		for {
			select {
			case c, ok := <-in:
				if !ok {
					return nil
				}
				if _, err := w.Write(c.buf[:c.n]); err != nil {
					return fmt.Errorf("write layer: %w", err)
				}
				s.release(c)
			case <-s.ctx.Done():
				return context.Cause(s.ctx)
			}
		}
	})
}

func (s *stream) digest() digest.Digest {
	return digest.NewDigest(digest.SHA256, s.hash)
}

// write copies p to the archive.
func (s *stream) write(p []byte) error {
	for len(p) > 0 {
		room, err := s.room()
		if err != nil {
			return err
		}
		n := copy(room, p)
		s.advance(n)
		p = p[n:]
	}
	return nil
}

// copyChecked reads size bytes of the file directly into the archive. It returns their
// checksum, which another goroutine computes.
func (s *stream) copyChecked(fd int, size int64) (uint64, error) {
	for size > 0 {
		room, err := s.room()
		if err != nil {
			return 0, err
		}
		n, err := readSome(fd, room[:min(int64(len(room)), size)])
		if err != nil {
			return 0, err
		}
		s.cur.users.Add(1)
		if err := s.check(crcJob{data: room[:n], chunk: s.cur}); err != nil {
			return 0, err
		}
		s.advance(n)
		size -= int64(n)
	}
	sum := make(chan uint64, 1)
	if err := s.check(crcJob{result: sum}); err != nil {
		return 0, err
	}
	select {
	case v := <-sum:
		return v, nil
	case <-s.ctx.Done():
		return 0, context.Cause(s.ctx)
	}
}

// room returns the free part of the current chunk, at least one byte.
func (s *stream) room() ([]byte, error) {
	if s.cur == nil {
		select {
		case s.cur = <-s.free:
		case <-s.ctx.Done():
			return nil, context.Cause(s.ctx)
		}
		if s.cur.buf == nil {
			size := chunkSize
			if s.size == 0 {
				size = firstChunk
			}
			s.cur.buf = make([]byte, size)
		}
		s.cur.n = 0
		s.cur.users.Store(int32(len(s.sinks)) + 1)
	}
	return s.cur.buf[s.cur.n:], nil
}

// advance adds the n bytes that were written to room. It passes on a full chunk.
func (s *stream) advance(n int) {
	s.cur.n += n
	s.size += int64(n)
	if s.cur.n == len(s.cur.buf) {
		s.flush()
	}
}

// flush passes on the current chunk. No channel can be full, because each has room for
// all chunks.
func (s *stream) flush() {
	for _, in := range s.sinks {
		in <- s.cur
	}
	s.release(s.cur)
	s.cur = nil
}

func (s *stream) release(c *chunk) {
	if c.users.Add(-1) == 0 {
		s.free <- c
	}
}

// close ends the archive and the goroutines.
func (s *stream) close() {
	if s.cur != nil {
		s.flush()
	}
	for _, in := range s.sinks {
		close(in)
	}
	close(s.crc)
}

// crcJob is a part of the contents of a file. If result is set, it is the end of the
// file.
type crcJob struct {
	data   []byte
	chunk  *chunk
	result chan<- uint64
}

func (s *stream) check(job crcJob) error {
	select {
	case s.crc <- job:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// checksum computes the checksums of one file after the other.
func (s *stream) checksum() error {
	var sum uint64
	for {
		select {
		case job, ok := <-s.crc:
			if !ok {
				return nil
			}
			if job.result != nil {
				job.result <- sum
				sum = 0
				continue
			}
			sum = updateCRC(sum, job.data)
			s.release(job.chunk)
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}
