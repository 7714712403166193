package overlay

import (
	"os"
	"slices"
)

// The ways of mounting, one at a time.

func MountByAppending(m Mount) error    { return m.mountWith(appendLayers) }
func MountByOptionString(m Mount) error { return m.mountWith(optionString) }

// MountAfterRefusal is a kernel that does not know the first way.
func MountAfterRefusal(m Mount) error {
	return m.mountWith(func(Mount) error { return errNoAppend }, optionString)
}

func BindByCloning(source *os.File, target string, o BindOptions) error {
	return bind(source, place{path: target}, o, cloneTree)
}

func BindByRemounting(source *os.File, target string, o BindOptions) error {
	return bind(source, place{path: target}, o, remountBind)
}

func BindOntoByRemounting(source, target *os.File, o BindOptions) error {
	return bind(source, place{file: target}, o, remountBind)
}

// BindAfterRefusal is a kernel, or filter, that answers err to the first way.
func BindAfterRefusal(err error) func(source *os.File, target string, o BindOptions) error {
	return func(source *os.File, target string, o BindOptions) error {
		refuse := func(*os.File, place, BindOptions) error { return err }
		return bind(source, place{path: target}, o, refuse, remountBind)
	}
}

// ProbeActs are the names of what Probe does.
func ProbeActs() []string {
	var names []string
	for _, a := range stepActs {
		names = append(names, a.name)
	}
	return names
}

// ProbeRefusing is Probe on a file system that answers err to one of its acts.
func ProbeRefusing(dir string, userXattr bool, name string, err error) error {
	p := newProbe(userXattr)
	p.acts = slices.Clone(p.acts)
	for i := range p.acts {
		if p.acts[i].name == name {
			p.acts[i].do = func(*scene) error { return err }
		}
	}
	_, got := p.run(dir)
	return got
}

// ProbeUnmountable is Probe where mounting an overlay gives err, on a kernel of
// the release; anything is whether a tmpfs can be mounted, works whether an
// overlay can be on that.
func ProbeUnmountable(dir string, userXattr bool, release string, anything, works bool, err error) error {
	p := newProbe(userXattr)
	p.ways = []strategy{func(Mount) error { return err }}
	p.release, p.label = release, "label"
	p.elsewhere = func(string, Mount) (bool, bool) { return anything, works }
	_, got := p.run(dir)
	return got
}

// MountElsewhere is what Probe tries where a mount was refused.
func MountElsewhere(target string, userXattr bool) (anything, works bool) {
	return mountElsewhere(target, Mount{UserXattr: userXattr})
}

var (
	ParseMountsBelow = parseMountsBelow
	UnescapeOctal    = unescapeOctal
)
