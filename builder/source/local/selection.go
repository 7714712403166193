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

// Selection names the files that an operation reads from a tree.
type Selection struct {
	// Path is the path of the files inside the tree. "" is the root.
	Path string
	// Wildcard enables the wildcards *, ? and [] in Path.
	Wildcard bool
	// FollowLinks follows a symbolic link in the last component of Path or of a match.
	// Links in the other components are always followed.
	FollowLinks bool
	// IncludePatterns and ExcludePatterns are relative to Path.
	IncludePatterns []string
	ExcludePatterns []string
	// RequiredPaths must be among the selected files. They are absolute.
	RequiredPaths []string
	// Optional means that it is not an error if Path does not exist.
	Optional bool
}

// String returns a text that is different for different selections, so that it can be
// part of a cache key.
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

// Pick is an entry that is selected by a Selection.
type Pick struct {
	*Entry
	// Source is the path of the pick. For the top of a pick, this is the path that
	// matched Path. Below the top it is the entry's name. If a symbolic link was
	// followed, it differs from the entry's own path.
	Source string
	// Direct is false if a directory is only picked because of an entry below it.
	Direct bool

	filter *patterns
	within matched // result of its path for the filter
	up     *Pick   // nil for the top
}

// Pick returns the entries that sel selects, one pick for each match of its path, in the
// order of their names. It returns a NotFoundError if a path without wildcards does not
// exist, or if a required path is not among the picks.
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

// tops returns the matches of the selection's path.
func (t *Tree) tops(sel Selection) ([]*Pick, error) {
	if sel.Wildcard && hasWildcards(sel.Path) {
		return t.glob(sel)
	}
	name := path.Join("/", sel.Path)
	if sel.Path != name && (strings.HasSuffix(sel.Path, "/") || strings.HasSuffix(sel.Path, "/.")) {
		// The trailing slash only means that a symbolic link is followed. Lookup does
		// that.
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

// glob expands wildcards. Symbolic links before the first wildcard are followed. Links in
// the last component are followed if FollowLinks is set. Other links are not followed.
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
			continue // glob has rejected malformed patterns
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

// hasWildcards reports whether name contains an unescaped wildcard.
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

// rel returns the path below the top. It is "" for the top itself.
func (p *Pick) rel() string {
	if p.up == nil {
		return ""
	}
	return path.Join(p.up.rel(), p.Source)
}

// Below returns the picked entries of a directory, sorted by name. Each call finds them
// again.
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

// child sets pick to the pick of p's entry c. It reports whether c is picked.
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

// any reports whether any entry below p is picked.
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

// contains reports whether a directly picked path is required or is below it.
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

// inside reports whether name is dir or is below it.
func inside(name, dir string) bool {
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}

// Mode returns the type and permissions of the picked entry.
func (p *Pick) Mode() fs.FileMode { return p.Entry.Mode() }
