package plain

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// scan notes what an open directory holds. Files that are as old says keep the
// origin that it gives them.
func scan(fd int, old *record, spared *Spared) (*record, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	s := &scanner{spared: spared, helpers: newHelpers()}
	r := &record{meta: metaOf(&st)}
	return r, s.dir(fd, "", r, old)
}

// scanner looks through one tree. A stat takes the kernel some microseconds and no
// waiting, so there are as many at a time as there are processors.
type scanner struct {
	spared  *Spared
	helpers helpers
}

// helpers are the goroutines that there may be beside the first one.
type helpers chan struct{}

// newHelpers allows as many goroutines as there are processors.
func newHelpers() helpers { return make(helpers, runtime.GOMAXPROCS(0)-1) }

// do calls fn, in another goroutine if there may be one more, for which wait waits.
func (h helpers) do(wait *sync.WaitGroup, fn func()) {
	select {
	case h <- struct{}{}:
		wait.Go(func() {
			fn()
			<-h
		})
	default:
		fn()
	}
}

// dir fills r, of which the metadata are known, with what the open directory
// holds.
func (s *scanner) dir(fd int, dir string, r, old *record) error {
	if old != nil {
		r.origin = old.origin
	}
	names, err := list(fd)
	if err != nil {
		return fmt.Errorf("list /%s: %w", dir, err)
	}
	r.children = make(map[string]*record, len(names))
	around := dir == "" || s.spared.Above(dir)
	var below []*scanned
	var wait sync.WaitGroup
	for _, name := range names {
		rel := path.Join(dir, name)
		if around && s.spared.Has(rel) {
			continue
		}
		var before *record
		if old != nil {
			before = old.children[name]
		}
		var st unix.Stat_t
		err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue // went away meanwhile
		}
		if err != nil {
			wait.Wait()
			return fmt.Errorf("stat /%s: %w", rel, err)
		}
		c := &record{meta: metaOf(&st)}
		r.children[name] = c
		if !c.isDir() {
			if before != nil && before.meta == c.meta {
				c.origin = before.origin
			}
			continue
		}
		d := &scanned{name: name, rel: rel, record: c, before: before}
		below = append(below, d)
		s.helpers.do(&wait, func() { d.err = s.below(fd, d) })
	}
	wait.Wait()
	for _, d := range below {
		switch {
		case errors.Is(d.err, unix.ENOENT):
			delete(r.children, d.name)
		case d.err != nil:
			return d.err
		}
	}
	return nil
}

// scanned is a directory in another one.
type scanned struct {
	name, rel string
	record    *record
	before    *record // what was there the last time, nil for nothing
	err       error
}

// below scans d, which is in the open directory.
func (s *scanner) below(dir int, d *scanned) error {
	before := d.before
	if before != nil && !before.isDir() {
		before = nil
	}
	fd, err := openDir(dir, d.name)
	if err != nil {
		return fmt.Errorf("open /%s: %w", d.rel, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := s.dir(fd, d.rel, d.record, before); err != nil {
		return err
	}
	// A new change time may be that of a new attribute, the recorded owner for one,
	// and not only of something put in or taken out.
	if r := d.record; before != nil && (r.mode != before.mode || r.uid != before.uid || r.gid != before.gid || r.ctim != before.ctim) {
		r.origin = nil
	}
	return nil
}
