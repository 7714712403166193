package local

import (
	"fmt"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
)

// patterns select paths. A path is picked if it matches an include pattern, or if there
// are no include patterns, and if no exclude pattern matches it. It is safe for
// concurrent use.
type patterns struct {
	include, exclude *patternmatcher.PatternMatcher
	// plainIncludes reports that no include pattern has wildcards except trailing ones.
	// plainExceptions reports the same for the exceptions to the exclude patterns. The
	// start of such a pattern then shows which directories can contain its matches.
	plainIncludes, plainExceptions bool

	mu sync.Mutex // matching compiles the patterns on first use
}

// matched is the result of matching a directory's path. The zero value is for the
// directory that the patterns are relative to.
type matched struct{ include, exclude patternmatcher.MatchInfo }

// newPatterns returns nil if there are no patterns.
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

// test reports whether rel is picked, and whether any path below it can be picked. m must
// be passed as up for the entries of rel.
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

// reachInto reports whether one of the patterns, or of the exceptions, starts with the
// directory rel.
func reachInto(m *patternmatcher.PatternMatcher, exceptions bool, rel string) bool {
	for _, p := range m.Patterns() {
		if p.Exclusion() == exceptions && strings.HasPrefix(withoutGlob(p)+"/", rel+"/") {
			return true
		}
	}
	return false
}
