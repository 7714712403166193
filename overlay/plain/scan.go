package plain

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// scan records the contents of an open directory. Files that have not changed since old
// keep their origin.
func scan(fd int, old *record, spared *Spared) (*record, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	s := &scanner{spared: spared, helpers: newHelpers()}
	r := &record{meta: metaOf(&st)}
	return r, s.dir(fd, "", r, old)
}

// scanner scans one tree. A stat takes some microseconds of processor time and does not
// wait for a disk, so as many run concurrently as there are processors.
type scanner struct {
	spared  *Spared
	helpers helpers
}

// helpers limits the number of goroutines besides the first one.
type helpers chan struct{}

// newHelpers allows as many goroutines as there are processors.
func newHelpers() helpers { return make(helpers, runtime.GOMAXPROCS(0)-1) }

// do calls fn. It uses another goroutine if the limit allows this; wait then waits for
// that goroutine.
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

// dir scans the open directory into r, whose metadata are already set.
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
			continue // removed meanwhile
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

// scanned is a subdirectory that is being scanned.
type scanned struct {
	name, rel string
	record    *record
	before    *record // the record of the last scan, nil if there is none
	err       error
}

// below scans d, which is in the open directory dir.
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
	// A new change time does not only come from added or removed entries. It may also
	// come from a new extended attribute, for example a recorded owner.
	if r := d.record; before != nil && (r.mode != before.mode || r.uid != before.uid || r.gid != before.gid || r.ctim != before.ctim) {
		r.origin = nil
	}
	return nil
}
