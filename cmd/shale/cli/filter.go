package cli

import (
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/shale-build/shale/storage"
)

// imageFilter is one value KEY=VALUE of --filter.
type imageFilter struct{ key, value string }

func parseImageFilters(values []string) ([]imageFilter, error) {
	var filters []imageFilter
	for _, v := range values {
		key, value, found := strings.Cut(v, "=")
		switch key {
		case "dangling":
			if _, err := strconv.ParseBool(value); err != nil {
				return nil, fmt.Errorf("invalid filter %q: dangling is true or false", v)
			}
		case "reference", "label", "before", "since", "until":
		default:
			return nil, fmt.Errorf("invalid filter %q: it is one of dangling, reference, label, before, since, until", v)
		}
		if !found || value == "" {
			return nil, fmt.Errorf("invalid filter %q: want KEY=VALUE", v)
		}
		filters = append(filters, imageFilter{key, value})
	}
	return filters, nil
}

// parseUntil parses the value of until=: a duration before now, or a time.
func parseUntil(value string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(value); err == nil {
		return now.Add(-d), nil
	}
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil {
		return time.Unix(seconds, 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, value, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid until %q: want a duration such as 24h, or a time such as 2026-01-02T15:04:05", value)
}

// imageMatcher selects the images that match all filters. If there are several
// references, one of them must match. If there are several labels, the image must have
// all of them.
type imageMatcher struct {
	store         imageReader
	dangling      *bool
	references    []string
	labels        []string
	before, since time.Time
}

func newImageMatcher(store imageReader, filters []imageFilter, now time.Time) (*imageMatcher, error) {
	m := &imageMatcher{store: store}
	for _, f := range filters {
		if err := m.add(f, now); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *imageMatcher) add(f imageFilter, now time.Time) error {
	switch f.key {
	case "dangling":
		value, err := strconv.ParseBool(f.value)
		m.dangling = &value
		return err
	case "reference":
		m.references = append(m.references, f.value)
	case "label":
		m.labels = append(m.labels, f.value)
	case "until":
		t, err := parseUntil(f.value, now)
		m.limit(t)
		return err
	case "before", "since":
		img, _, err := find(m.store, f.value)
		if err != nil {
			return err
		}
		if f.key == "before" {
			m.limit(img.Created)
		} else if img.Created.After(m.since) {
			m.since = img.Created
		}
	}
	return nil
}

func (m *imageMatcher) limit(t time.Time) {
	if m.before.IsZero() || t.Before(m.before) {
		m.before = t
	}
}

// names returns the names of img that match, and reports whether img itself matches.
func (m *imageMatcher) names(img storage.Image) ([]string, bool, error) {
	if m.dangling != nil && *m.dangling != img.Dangling() {
		return nil, false, nil
	}
	if !m.before.IsZero() && !img.Created.Before(m.before) || !m.since.IsZero() && !img.Created.After(m.since) {
		return nil, false, nil
	}
	names := img.Names
	if len(m.references) > 0 {
		names = m.matching(img.Names)
		if len(names) == 0 {
			return nil, false, nil
		}
	}
	ok, err := m.labelled(img)
	return names, ok, err
}

func (m *imageMatcher) matching(names []string) []string {
	var out []string
	for _, name := range names {
		for _, pattern := range m.references {
			if matchesReference(name, pattern) {
				out = append(out, name)
				break
			}
		}
	}
	return out
}

// matchesReference reports whether a name matches a pattern, for example app, app:1.*
// or */app. The pattern may omit the registry of the name.
func matchesReference(name, pattern string) bool {
	repository, tag, _ := splitName(name)
	for _, spelled := range spellings(repository) {
		for _, candidate := range []string{spelled, spelled + ":" + tag} {
			if ok, err := path.Match(pattern, candidate); ok && err == nil {
				return true
			}
		}
	}
	return false
}

func spellings(repository string) []string {
	out := []string{repository}
	for _, prefix := range []string{localRegistry + "/", "docker.io/library/", "docker.io/"} {
		if short, ok := strings.CutPrefix(repository, prefix); ok {
			out = append(out, short)
		}
	}
	return out
}

func (m *imageMatcher) labelled(img storage.Image) (bool, error) {
	if len(m.labels) == 0 {
		return true, nil
	}
	data, err := m.store.ImageConfig(img.ID)
	if err != nil {
		return false, err
	}
	var config struct {
		Config struct{ Labels map[string]string } `json:"config"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return false, fmt.Errorf("read config of image %s: %w", shortID(img.ID), err)
	}
	for _, want := range m.labels {
		key, value, hasValue := strings.Cut(want, "=")
		got, ok := config.Config.Labels[key]
		if !ok || hasValue && got != value {
			return false, nil
		}
	}
	return true, nil
}
