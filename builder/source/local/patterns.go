package local

import (
	"fmt"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
)

// patterns tell which paths are picked: those that an include pattern matches,
// if there are any, and that no exclude pattern matches. It is safe for
// concurrent use.
type patterns struct {
	include, exclude *patternmatcher.PatternMatcher
	// plainIncludes and plainExceptions tell that no include pattern, or no
	// exception to the exclude patterns, has wildcards but for trailing ones:
	// their beginning says which directories they can match in.
	plainIncludes, plainExceptions bool

	mu sync.Mutex // matching compiles patterns when it first needs them
}

// matched is what a directory's path told about the patterns. The zero value is
// for the directory that the patterns are relative to.
type matched struct{ include, exclude patternmatcher.MatchInfo }

// newPatterns returns nil when there are none.
func newPatterns(include, exclude []string) (*patterns, error) {
	if len(include) == 0 && len(exclude) == 0 {
		return nil, nil
	}
	p := &patterns{}
	var err error
	if len(include) > 0 {
		if p.include, err = patternmatcher.New(include); err != nil {
			return nil, fmt.Errorf("invalid includepatterns: %s: %w", include, err)
		}
		p.plainIncludes = plain(p.include, false)
	}
	if len(exclude) > 0 {
		if p.exclude, err = patternmatcher.New(exclude); err != nil {
			return nil, fmt.Errorf("invalid excludepatterns: %s: %w", exclude, err)
		}
		p.plainExceptions = plain(p.exclude, true)
	}
	return p, nil
}

func plain(m *patternmatcher.PatternMatcher, exceptions bool) bool {
	for _, p := range m.Patterns() {
		if p.Exclusion() == exceptions && strings.ContainsAny(withoutGlob(p), `*[]?^\`) {
			return false
		}
	}
	return true
}

func withoutGlob(p *patternmatcher.Pattern) string {
	return strings.TrimSuffix(strings.TrimSuffix(p.String(), "/**"), "/*")
}

// test tells whether rel is picked, whether anything below it can be, and what
// to pass for what is directly below it.
func (p *patterns) test(rel string, up matched) (picked, below bool, m matched, err error) {
	if p == nil {
		return true, true, matched{}, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	picked, below = true, true
	if p.include != nil {
		var in bool
		if in, m.include, err = p.include.MatchesUsingParentResults(rel, up.include); err != nil {
			return false, false, m, fmt.Errorf("match include patterns: %w", err)
		}
		if !in {
			picked = false
			below = !p.plainIncludes || reachInto(p.include, false, rel)
		}
	}
	if p.exclude != nil && below {
		var out bool
		if out, m.exclude, err = p.exclude.MatchesUsingParentResults(rel, up.exclude); err != nil {
			return false, false, m, fmt.Errorf("match exclude patterns: %w", err)
		}
		if out {
			picked = false
			below = p.exclude.Exclusions() && (!p.plainExceptions || reachInto(p.exclude, true, rel))
		}
	}
	return picked, below, m, nil
}

// reachInto tells whether one of the patterns, or of the exceptions, begins
// with the directory rel.
func reachInto(m *patternmatcher.PatternMatcher, exceptions bool, rel string) bool {
	for _, p := range m.Patterns() {
		if p.Exclusion() == exceptions && strings.HasPrefix(withoutGlob(p)+"/", rel+"/") {
			return true
		}
	}
	return false
}
