package explain

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// Kind is the type of a Fact.
type Kind string

// The kinds, in the order in which changes are listed.
const (
	Command  Kind = "command"
	Setting  Kind = "setting"
	Variable Kind = "variable"
	Mount    Kind = "mount"
	File     Kind = "file"
	Input    Kind = "input"
)

var order = []Kind{Command, Setting, Variable, Mount, File, Input}

// maxFacts limits the number of facts of a step. All further facts are joined into one.
const maxFacts = 100_000

// Fact is one input of a step.
type Fact struct {
	Kind Kind
	// Name distinguishes facts of one kind. It is shown to users.
	Name string
}

// sum is a short digest. It is long enough to detect a change, but it does not contain
// the whole hash of a secret.
type sum [8]byte

// Facts are the facts of one step. The zero value is empty and ready to use.
type Facts struct {
	sums map[Fact]sum
}

// Add records the value of a fact. If the fact was added before, its digest depends on
// both values.
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

// Assume copies a fact from was, if its current value is not known yet.
func (f *Facts) Assume(was *Facts, kind Kind, name string) {
	fact := Fact{kind, name}
	if s, ok := was.sums[fact]; ok {
		if f.sums == nil {
			f.sums = map[Fact]sum{}
		}
		f.sums[fact] = s
	}
}

// Len returns the number of facts.
func (f *Facts) Len() int { return len(f.sums) }

// Compare returns the differences between was and now in words, ordered by kind and name.
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

// String describes the fact, for example "file src/main.c" or "the command".
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

// maxTold is the number of changes that are listed one by one.
const maxTold = 3

// Sentence joins changes to one line. If there are many, it lists the first ones and
// counts the rest.
func Sentence(changes []string) string {
	if more := len(changes) - maxTold; more > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(changes[:maxTold], ", "), more)
	}
	return strings.Join(changes, ", ")
}
