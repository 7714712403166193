package argv

import (
	"sort"

	"github.com/urfave/cli/v2"
)

// flagSpec describes a flag as far as parsing its argument requires.
type flagSpec struct {
	// name is the first name of the flag. Every argument is written with this name,
	// because urfave/cli refuses a flag that is given under two names.
	name    string
	boolean bool
	hidden  bool
}

func (f flagSpec) argument(value string, hasValue bool) string {
	prefix := "--"
	if len(f.name) == 1 {
		prefix = "-"
	}
	if !hasValue {
		return prefix + f.name
	}
	return prefix + f.name + "=" + value
}

// flagTable maps every name of a flag to its description.
type flagTable map[string]flagSpec

func newFlagTable(flags []cli.Flag) flagTable {
	table := flagTable{}
	for _, f := range flags {
		if f == nil {
			continue
		}
		names := f.Names()
		spec := flagSpec{name: names[0]}
		if doc, ok := f.(cli.DocGenerationFlag); ok {
			spec.boolean = !doc.TakesValue()
		}
		if v, ok := f.(cli.VisibleFlag); ok {
			spec.hidden = !v.IsVisible()
		}
		for _, name := range names {
			table[name] = spec
		}
	}
	return table
}

// names returns the names that may be suggested to the user, sorted. It omits hidden
// flags and names of one letter.
func (t flagTable) names() []string {
	var names []string
	for name, spec := range t {
		if !spec.hidden && len(name) > 1 {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}
