package cli

import (
	"os"
	"runtime"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func infoCommand() *cli.Command {
	return &cli.Command{
		Name:  "info",
		Usage: "Show the store and the environment builds run in",
		Flags: []cli.Flag{formatFlag("print with `FORMAT`: json or a Go template")},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			return withStore(c, func(s *session) error {
				details, err := readInfo(s)
				if err != nil {
					return err
				}
				return writeValue(c, c.String("format"), infoText, details)
			})
		},
	}
}

// infoDetails holds the values that info prints.
type infoDetails struct {
	Version       string
	Images        int
	Layers        int
	Driver        string
	GraphRoot     string
	RunRoot       string
	UserXattr     bool
	IDs           string
	IDsReason     string
	UIDs, GIDs    uint64
	OSType        string
	Architecture  string
	KernelVersion string
	NCPU          int
	Rootless      bool
}

const infoText = `Version:        {{.Version}}
Images:         {{.Images}}
Layers:         {{.Layers}}
Storage driver: {{.Driver}}
Graph root:     {{.GraphRoot}}
Run root:       {{.RunRoot}}
Rootless:       {{.Rootless}}
IDs:            {{.IDs}} ({{.UIDs}} users, {{.GIDs}} groups){{if .IDsReason}}
                {{.IDsReason}}{{end}}
Kernel:         {{.KernelVersion}}
OS/Arch:        {{.OSType}}/{{.Architecture}}
CPUs:           {{.NCPU}}`

func readInfo(s *session) (infoDetails, error) {
	images, err := s.store.Images()
	if err != nil {
		return infoDetails{}, err
	}
	layers, err := s.store.Layers()
	if err != nil {
		return infoDetails{}, err
	}
	d := infoDetails{
		Version: Version, Images: len(images), Layers: len(layers), Driver: "overlay",
		GraphRoot: s.store.GraphRoot(), RunRoot: s.store.RunRoot(), UserXattr: s.store.UserXattr(),
		IDs: string(s.ids.Mode), IDsReason: s.ids.Reason, UIDs: s.ids.UIDs, GIDs: s.ids.GIDs,
		OSType: runtime.GOOS, Architecture: runtime.GOARCH, NCPU: runtime.NumCPU(),
		Rootless: s.ids.OuterUID != 0,
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return d, os.NewSyscallError("uname", err)
	}
	d.KernelVersion = unix.ByteSliceToString(uts.Release[:])
	return d, nil
}
