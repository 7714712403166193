package overlay

import "os"

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

var (
	ParseMountsBelow = parseMountsBelow
	UnescapeOctal    = unescapeOctal
)
