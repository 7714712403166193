package overlay

import (
	"os"
	"slices"
)

// MountByAppending and MountByOptionString each use only one way to mount.

func MountByAppending(m Mount) error    { return m.mountWith(appendLayers) }
func MountByOptionString(m Mount) error { return m.mountWith(optionString) }

// MountAfterRefusal mounts like a kernel that does not support the first way.
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

// BindAfterRefusal binds like a kernel, or under a filter, that returns err for the first
// way.
func BindAfterRefusal(err error) func(source *os.File, target string, o BindOptions) error {
	return func(source *os.File, target string, o BindOptions) error {
		refuse := func(*os.File, place, BindOptions) error { return err }
		return bind(source, place{path: target}, o, refuse, remountBind)
	}
}

// ProbeActs returns the names of the operations of Probe.
func ProbeActs() []string {
	var names []string
	for _, a := range stepActs {
		names = append(names, a.name)
	}
	return names
}

// ProbeRefusing runs Probe with err as the result of the operation called name.
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

// ProbeUnmountable runs Probe on a kernel of the given release on which mounting an
// overlay returns err. anything reports whether a tmpfs can be mounted, and works whether
// an overlay can be mounted on that tmpfs.
func ProbeUnmountable(dir string, userXattr bool, release string, anything, works bool, err error) error {
	p := newProbe(userXattr)
	p.ways = []strategy{func(Mount) error { return err }}
	p.release, p.label = release, "label"
	p.elsewhere = func(string, Mount) (bool, bool) { return anything, works }
	_, got := p.run(dir)
	return got
}

// MountElsewhere runs the check that Probe does after a mount was refused.
func MountElsewhere(target string, userXattr bool) (anything, works bool) {
	return mountElsewhere(target, Mount{UserXattr: userXattr})
}

var (
	ParseMountsBelow = parseMountsBelow
	UnescapeOctal    = unescapeOctal
)
