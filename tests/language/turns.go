package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// turns are turns of phrase that readers stumbled over, each with its replacement.
var turns = []struct{ pattern, instead string }{
	{`tells? whether`, "reports whether"},
	{`what is had`, "name the thing"},
	{`is had\b`, "name the action"},
	{`comes? to nothing`, "say what fails"},
	{`on whatever`, "name the thing"},
	{`lets others`, "releases the lock"},
	{`lets (a|an) [A-Z]\w+ in`, "releases the lock"},
	{`whoever`, "the process, the caller, the user"},
	{`what (comes|lies|stands) (of|below|above|there)`, "name the thing"},
	{`what became of`, "the result of"},
	{`so (it|they) (is|are|was|were) (with|when|where)`, "the same holds for"},
	{`not so (when|where|if)`, "this does not hold if"},
	{`gives? (it |them )?away`, "say what is refused or lost"},
	{`by way of`, "through, via"},
}

var turnPatterns = func() (list []*regexp.Regexp) {
	for _, turn := range turns {
		list = append(list, regexp.MustCompile(`(?i).{0,30}\b`+turn.pattern))
	}
	return list
}()

// findTurns returns a line for each of turns in a text that begins at a line of a file.
func findTurns(file string, line int, text string) (found []string) {
	// A turn may be wrapped.
	text = strings.Join(strings.Fields(text), " ")
	for i, pattern := range turnPatterns {
		for _, match := range pattern.FindAllString(text, -1) {
			found = append(found, fmt.Sprintf("%s:%d: %q: write %s", file, line, match, turns[i].instead))
		}
	}
	return found
}

// avoid prints what findTurns finds in the comments and documents below root.
func avoid(root string) error {
	comments, err := commentsOf(root)
	if err != nil {
		return err
	}
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return err
	}
	for _, name := range append(documents, filepath.Join(root, "README.md")) {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		comments = append(comments, comment{File: name, Line: 1, Text: string(data)})
	}
	var found []string
	for _, c := range comments {
		if filepath.Base(filepath.Dir(c.File)) != "language" {
			found = append(found, findTurns(c.File, c.Line, c.Text)...)
		}
	}
	for _, line := range found {
		fmt.Println(line)
	}
	if len(found) > 0 {
		return errors.New("turns of phrase that readers stumbled over")
	}
	return nil
}
