package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindTurns(t *testing.T) {
	for text, want := range map[string]bool{
		"onlyRead tells whether\nit is only read": true,
		"It reports whether it is only read.":     false,
		"Whoever waits is woken":                  true,
		"Close lets others in.":                   true,
		"Close releases the lock.":                false,
	} {
		if got := len(findTurns("x.go", 1, text)) > 0; got != want {
			t.Errorf("%q: %t, want %t", text, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	c := &count{}
	c.add("If what it returns is nothing, the caller's buffer must not be used.")
	if want := "    13    76.9     0.0    76.9     0.0     0.0    76.9    76.9    76.9"; c.String() != want {
		t.Errorf("%q, want %q", c.String(), want)
	}
}

func TestComments(t *testing.T) {
	dir := t.TempDir()
	const source = `// Package x.
package x

// #include <what.h>
import "C"

//go:embed what
var a int // a word

//nolint:all // what
var b int
`
	if err := os.WriteFile(filepath.Join(dir, "x.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	comments, err := commentsOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, c := range comments {
		if text := strings.TrimSpace(c.Text); text != "" {
			all = append(all, text)
		}
	}
	if got := strings.Join(all, "|"); got != "Package x.|a word" {
		t.Errorf("%q", got)
	}
}
