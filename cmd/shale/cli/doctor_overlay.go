package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/runtime/probe"
)

// overlayProbe is the hidden command by which doctor tries overlays where they
// would be used: inside the namespaces, in the store's own file system.
const overlayProbe = "probe-overlay"

func overlayProbeCommand() *cli.Command {
	return &cli.Command{
		Name:   overlayProbe,
		Hidden: true,
		Action: func(c *cli.Context) error {
			return withStore(c, func(s *session) error {
				dir, err := s.store.StateDir("tmp")
				if err != nil {
					return err
				}
				features, err := overlay.Probe(dir, s.store.UserXattr())
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(c.App.Writer, describeOverlay(features)+besideVFS(s.store.GraphRoot()))
				return err
			})
		},
	}
}

// vfsBeside is said of a store in which podman or buildah keep images of their
// own that nobody else sees: Debian 12's choose the vfs driver unless told.
const vfsBeside = "; a vfs store beside it"

func besideVFS(graphRoot string) string {
	if _, err := os.Stat(filepath.Join(graphRoot, "vfs-images", "images.json")); err != nil {
		return ""
	}
	return vfsBeside
}

// describeOverlay names what is missing for the fastest way.
func describeOverlay(f overlay.Features) string {
	missing := []string{}
	for _, part := range []struct {
		has  bool
		name string
	}{
		{f.LowerdirPlus, "layers one by one"},
	} {
		if !part.has {
			missing = append(missing, part.name)
		}
	}
	if len(missing) == 0 {
		return "native"
	}
	return "native, without: " + strings.Join(missing, ", ")
}

// probeOverlay runs the hidden command with the same global flags.
func probeOverlay(ctx context.Context, c *cli.Context) probe.Result {
	r := probe.Result{Name: "overlay", Status: probe.OK}
	self, err := os.Executable()
	if err != nil {
		r.Status, r.Detail = probe.Missing, err.Error()
		return r
	}
	args := []string{}
	for _, name := range []string{rootFlag, runrootFlag} {
		if value := c.String(name); value != "" {
			args = append(args, "--"+name, value)
		}
	}
	out, err := exec.CommandContext(ctx, self, append(args, overlayProbe)...).Output()
	r.Detail = strings.TrimSpace(string(out))
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		r.Detail = strings.TrimSpace(string(exit.Stderr))
	} else if err != nil {
		r.Detail = err.Error()
	}
	if err != nil {
		r.Status = probe.Missing
		r.Fix = "put the store on a file system that can hold an overlay (--root), such as ext4 or xfs; Linux 5.11 or newer"
	} else if r.Detail != "native" {
		r.Status = probe.Degraded
	}
	if strings.Contains(r.Detail, vfsBeside) {
		r.Fix = `so that podman and shale see the same images, put driver = "overlay" under [storage] in ~/.config/containers/storage.conf`
	}
	return r
}
