package explain

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// Kind says what a Fact is about.
type Kind string

// The kinds, in the order in which changes are told.
const (
	Command  Kind = "command"
	Setting  Kind = "setting"
	Variable Kind = "variable"
	Mount    Kind = "mount"
	File     Kind = "file"
	Input    Kind = "input"
)

var order = []Kind{Command, Setting, Variable, Mount, File, Input}

// maxFacts bounds what is kept of one step: of a larger one the rest is one fact.
const maxFacts = 100_000

// Fact is one thing that a step depends on.
type Fact struct {
	Kind Kind
	// Name tells facts of one kind apart; what users see of them.
	Name string
}

// sum is a short digest: it tells values apart, and is no secret's whole hash.
type sum [8]byte

// Facts are those of one step. The zero value is empty and ready to use.
type Facts struct {
	sums map[Fact]sum
}

// Add notes that a fact has a value. A fact noted again has both values.
func (f *Facts) Add(kind Kind, name string, value []byte) {
	fact := Fact{kind, name}
	if len(f.sums) >= maxFacts {
		value = append([]byte(name), value...)
		fact = Fact{kind, "more of them"}
	}
	if f.sums == nil {
		f.sums = map[Fact]sum{}
	}
	if before, ok := f.sums[fact]; ok {
		value = append(before[:], value...)
	}
	full := sha256.Sum256(value)
	f.sums[fact] = sum(full[:len(sum{})])
}

// Assume notes a fact that is not known yet as it was.
func (f *Facts) Assume(was *Facts, kind Kind, name string) {
	fact := Fact{kind, name}
	if s, ok := was.sums[fact]; ok {
		if f.sums == nil {
			f.sums = map[Fact]sum{}
		}
		f.sums[fact] = s
	}
}

// Len counts the facts.
func (f *Facts) Len() int { return len(f.sums) }

// Compare returns what is different in now from what was, in words, ordered by
// kind and name.
func Compare(was, now *Facts) []string {
	type change struct {
		fact Fact
		how  string
	}
	var changes []change
	for fact, s := range now.sums {
		before, ok := was.sums[fact]
		switch {
		case !ok:
			changes = append(changes, change{fact, "is new"})
		case before != s:
			changes = append(changes, change{fact, "changed"})
		}
	}
	for fact := range was.sums {
		if _, ok := now.sums[fact]; !ok {
			changes = append(changes, change{fact, "is gone"})
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		if a.fact.Kind != b.fact.Kind {
			return slices.Index(order, a.fact.Kind) - slices.Index(order, b.fact.Kind)
		}
		return strings.Compare(a.fact.Name, b.fact.Name)
	})
	words := make([]string, 0, len(changes))
	for _, c := range changes {
		words = append(words, c.fact.String()+" "+c.how)
	}
	return words
}

// String says what the fact is about: "file src/main.c", "the command".
func (f Fact) String() string {
	switch f.Kind {
	case Command:
		return "the command"
	case Setting:
		return "the " + f.Name
	case Input:
		return "the result of " + f.Name
	case Variable, Mount, File:
	}
	return fmt.Sprintf("%s %s", f.Kind, f.Name)
}

// maxTold is how many changes are worth telling one by one.
const maxTold = 3

// Sentence joins changes to one line.
func Sentence(changes []string) string {
	if more := len(changes) - maxTold; more > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(changes[:maxTold], ", "), more)
	}
	return strings.Join(changes, ", ")
}
