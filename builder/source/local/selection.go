package local

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Selection says what an operation reads of a tree.
type Selection struct {
	// Path is what is read, inside the tree; "" is the root.
	Path string
	// Wildcard expands *, ? and [] in Path.
	Wildcard bool
	// FollowLinks follows a link that Path, or what it matches, is. Links in
	// the middle of Path are always followed.
	FollowLinks bool
	// IncludePatterns and ExcludePatterns are relative to Path.
	IncludePatterns []string
	ExcludePatterns []string
	// RequiredPaths must be among what is read. They are absolute.
	RequiredPaths []string
	// Optional makes it no error that Path does not exist.
	Optional bool
}

// String is unambiguous, so that it can be part of a cache key.
func (s Selection) String() string {
	var b strings.Builder
	b.WriteString(strconv.Quote(s.Path))
	for _, f := range []struct {
		name string
		set  bool
	}{{"wildcard", s.Wildcard}, {"follow", s.FollowLinks}, {"optional", s.Optional}} {
		if f.set {
			b.WriteString(" " + f.name)
		}
	}
	for _, l := range []struct {
		name     string
		patterns []string
	}{{"include", s.IncludePatterns}, {"exclude", s.ExcludePatterns}, {"require", s.RequiredPaths}} {
		if len(l.patterns) > 0 {
			fmt.Fprintf(&b, " %s=%q", l.name, l.patterns)
		}
	}
	return b.String()
}

// Pick is an entry that a Selection selects.
type Pick struct {
	*Entry
	// Source is the path by which the pick was found: what Path matched for
	// the top of a pick, the entry's name below it. It differs from the
	// entry's own where a link was followed.
	Source string
	// Direct is false for a directory that is there only because of
	// something below it.
	Direct bool

	filter *patterns
	within matched // what its path told about the filter
	up     *Pick   // nil for the top
}

// Pick finds what sel selects, one pick for each match of its path, in the
// order of names. A path without wildcards that does not exist is a
// NotFoundError, and so is a required path that is not among the picks.
func (t *Tree) Pick(ctx context.Context, sel Selection) ([]*Pick, error) {
	tops, err := t.tops(sel)
	if len(sel.RequiredPaths) > 0 && isNotFound(err) {
		return nil, &NotFoundError{Path: sel.RequiredPaths[0]}
	}
	if err != nil {
		return nil, err
	}
	filter, err := newPatterns(sel.IncludePatterns, sel.ExcludePatterns)
	if err != nil {
		return nil, err
	}
	for _, p := range tops {
		p.filter = filter
	}
	if len(sel.IncludePatterns) > 0 {
		for _, required := range sel.RequiredPaths {
			found, err := contains(ctx, tops, required)
			if err != nil {
				return nil, err
			}
			if !found {
				return nil, &NotFoundError{Path: required}
			}
		}
	}
	return tops, ctx.Err()
}

// tops finds the matches of the selection's path.
func (t *Tree) tops(sel Selection) ([]*Pick, error) {
	if sel.Wildcard && hasWildcards(sel.Path) {
		return t.glob(sel)
	}
	name := path.Join("/", sel.Path)
	if sel.Path != name && (strings.HasSuffix(sel.Path, "/") || strings.HasSuffix(sel.Path, "/.")) {
		// The slash says nothing about the source but that a link is
		// followed, which Lookup takes from it.
		name += "/"
	}
	e, err := t.Lookup(name, sel.FollowLinks)
	if err != nil {
		if sel.Optional && isNotFound(err) {
			return nil, nil
		}
		return nil, err
	}
	return []*Pick{{Entry: e, Source: path.Clean(name), Direct: true}}, nil
}

func isNotFound(err error) bool {
	_, ok := err.(*NotFoundError) //nolint:errorlint // Lookup returns it bare
	return ok
}

// glob expands wildcards. Links are followed before the first wildcard and,
// when the selection says so, in what matches; not between.
func (t *Tree) glob(sel Selection) ([]*Pick, error) {
	var literal, wild []string
	for _, c := range split(path.Join("/", sel.Path)) {
		if len(wild) == 0 && !hasWildcards(c) {
			literal = append(literal, c)
			continue
		}
		if _, err := path.Match(c, ""); err != nil {
			return nil, fmt.Errorf("match %q: %w", sel.Path, err)
		}
		wild = append(wild, c)
	}
	base := "/" + strings.Join(literal, "/")
	e, err := t.Lookup(base, true)
	switch {
	case isNotFound(err) && sel.Optional:
		return nil, nil
	case isNotFound(err):
		return nil, &os.PathError{Op: "lstat", Path: base, Err: unix.ENOENT}
	case err != nil:
		return nil, err
	}
	var tops []*Pick
	err = match(e, base, wild, func(e *Entry, name string) error {
		if sel.FollowLinks {
			followed, err := t.Lookup(e.Path(), true)
			if err != nil {
				return err
			}
			e = followed
		}
		tops = append(tops, &Pick{Entry: e, Source: name, Direct: true})
		return nil
	})
	return tops, err
}

func match(e *Entry, name string, wild []string, found func(*Entry, string) error) error {
	children, err := e.Children()
	if err != nil {
		return err
	}
	for _, c := range children {
		if ok, err := path.Match(wild[0], c.Name()); err != nil || !ok {
			continue // glob has refused malformed patterns
		}
		p := path.Join(name, c.Name())
		if len(wild) == 1 {
			err = found(c, p)
		} else if c.IsDir() {
			err = match(c, p, wild[1:], found)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hasWildcards reports whether an unescaped wildcard is in name.
func hasWildcards(name string) bool {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// rel is the path below the top, "" for the top itself.
func (p *Pick) rel() string {
	if p.up == nil {
		return ""
	}
	return path.Join(p.up.rel(), p.Source)
}

// Below lists the picked children of a directory, sorted by name. They are found
// anew at every call.
func (p *Pick) Below() ([]*Pick, error) {
	if !p.IsDir() {
		return nil, nil
	}
	children, err := p.Children()
	if err != nil {
		return nil, err
	}
	slab := make([]Pick, len(children))
	picks := make([]*Pick, 0, len(children))
	for i, c := range children {
		ok, err := p.child(&slab[i], c)
		if err != nil {
			return nil, err
		}
		if ok {
			picks = append(picks, &slab[i])
		}
	}
	return picks, nil
}

// child fills in the pick for a child of p, false when it is not picked.
func (p *Pick) child(pick *Pick, c *Entry) (bool, error) {
	*pick = Pick{Entry: c, Source: c.name, Direct: true, filter: p.filter, up: p}
	if p.filter == nil {
		return true, nil
	}
	picked, below, within, err := p.filter.test(path.Join(p.rel(), c.name), p.within)
	if err != nil {
		return false, err
	}
	pick.Direct, pick.within = picked, within
	if picked || !below || !c.IsDir() {
		return picked, nil
	}
	return pick.any()
}

// any tells whether anything is picked below p.
func (p *Pick) any() (bool, error) {
	children, err := p.Children()
	if err != nil {
		return false, err
	}
	for _, c := range children {
		if ok, err := p.child(&Pick{}, c); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// contains reports whether a directly picked path starts with required.
func contains(ctx context.Context, picks []*Pick, required string) (bool, error) {
	for _, p := range picks {
		if ok, err := reaches(ctx, p, path.Clean(p.Source), path.Clean(required)); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func reaches(ctx context.Context, p *Pick, name, required string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if p.Direct && name != "/" && inside(name, required) {
		return true, nil
	}
	below, err := p.Below()
	if err != nil {
		return false, err
	}
	for _, c := range below {
		if ok, err := reaches(ctx, c, path.Join(name, c.Source), required); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// inside reports whether name is dir or below it.
func inside(name, dir string) bool {
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}

// Mode returns type and permissions of the picked entry.
func (p *Pick) Mode() fs.FileMode { return p.Entry.Mode() }
