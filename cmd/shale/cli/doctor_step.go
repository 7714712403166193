package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/builder/frontend"
	"github.com/shale-build/shale/builder/progress"
	"github.com/shale-build/shale/builder/rootfs"
	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/runtime/probe"
	"github.com/shale-build/shale/runtime/sandbox"
	"github.com/shale-build/shale/runtime/sandbox/initproc"
	"github.com/shale-build/shale/storage"
)

// stepProbe is the hidden command with which doctor builds a small image. The build
// runs where real builds run: inside the namespaces, in the file system of the store,
// and with layers shown in the same way.
const stepProbe = "probe-step"

// trialReport is the result of the hidden command, which prints it as JSON to standard
// output.
type trialReport struct {
	// GraphRoot is the directory of the store.
	GraphRoot string
	// Native reports whether layers are shown without overlays. Detail is the reason,
	// and LayersFix is the advice.
	Native            bool
	Detail, LayersFix string
	// OneByOne reports whether overlays accept their layers one by one.
	OneByOne bool
	// Step is the reason why the image could not be built, or "" if it could be built.
	// StepFix is the advice.
	Step, StepFix string
}

func stepProbeCommand() *cli.Command {
	return &cli.Command{
		Name:   stepProbe,
		Hidden: true,
		Action: func(c *cli.Context) error {
			var report trialReport
			err := withStore(c, func(s *session) error { return report.fill(c, s) })
			if err != nil {
				report.Step, report.StepFix = reasonOf(err), fixOf(err)
			}
			return json.NewEncoder(c.App.Writer).Encode(report)
		},
	}
}

// fill describes the store and builds the image. It returns an error if the build
// fails.
func (r *trialReport) fill(c *cli.Context, s *session) error {
	r.GraphRoot = s.store.GraphRoot()
	r.Native, r.Detail = s.layers.Native, s.layers.Detail
	r.LayersFix = fixOfLayers(s.layers)
	tmp, err := s.store.StateDir("tmp")
	if err != nil {
		return err
	}
	if !r.Native {
		features, err := overlay.Probe(tmp, s.store.UserXattr())
		if err != nil {
			return err // the store uses overlays, so this should not happen
		}
		r.OneByOne = features.LowerdirPlus
	}
	return tryStep(c, s, tmp)
}

// trialDockerfile needs only the program of the trial. Its second step changes files of
// a lower layer.
var trialDockerfile = `FROM scratch
ENV ` + initproc.TrialVariable + `=1
COPY trial /trial
RUN ["/trial", "` + initproc.TrialMake + `"]
RUN ["/trial", "` + initproc.TrialChange + `"]
`

// tryStep builds a small image in a temporary store. This store is in the state
// directory tmp of the real store, and tryStep removes it.
func tryStep(c *cli.Context, s *session, tmp string) (err error) {
	work, err := rootfs.OpenWorkspace(c.Context, tmp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.Remove()) }()
	at := func(name string) string { return filepath.Join(work.Dir, name) }
	program, err := sandbox.TrialProgram()
	if err != nil {
		return err
	}
	if err := os.Mkdir(at("context"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(at("context/trial"), program, 0o700); err != nil { //nolint:gosec // a program
		return err
	}
	if err := os.WriteFile(at("context/Dockerfile"), []byte(trialDockerfile), 0o600); err != nil {
		return err
	}
	// The run root must be below the real one, because security modules have rules for
	// the places of network namespaces.
	run, err := os.MkdirTemp(s.store.RunRoot(), "shale-doctor-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(run)) }()
	location, err := storage.Locate(storage.Options{
		GraphRoot: at("root"), RunRoot: run, Recorded: s.ids.SingleID(), Logger: s.logger,
	})
	if err != nil {
		return err
	}
	store, err := location.Open(s.layers.Native)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, store.Close(), unmountAll(at("root/overlay")), unmountAll(at("root")))
	}()
	return buildTrial(c, &session{store: store, logger: s.logger, ids: s.ids, layers: s.layers}, at("context"))
}

// unmountAll removes all mounts at dir. A store and the driver of its layers each bind
// mount their directory on itself.
func unmountAll(dir string) error {
	for {
		err := overlay.Unmount(dir)
		if errors.Is(err, overlay.ErrNotMounted) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func buildTrial(c *cli.Context, s *session, context string) error {
	opts := builder.Options{Options: frontend.Options{Context: context, Network: "default", IgnoreRego: true}}
	services, err := newServices(c, s, opts.Network)
	if err != nil {
		return err
	}
	if err := services.place(s, &opts); err != nil {
		return errors.Join(err, services.close())
	}
	output := &stepOutput{Sink: progress.Discard}
	services.deps.Progress = output
	_, err = builder.Build(c.Context, opts, services.deps)
	if err = errors.Join(err, services.close()); err == nil {
		return nil
	}
	if said := output.last(); said != "" {
		return &trialError{said: said, err: err}
	}
	return err
}

// trialError is returned if a step failed and printed the reason.
type trialError struct {
	said string
	err  error
}

func (e *trialError) Error() string { return "in a step: " + e.said }

func (e *trialError) Unwrap() error { return e.err }

// stepOutput keeps the output of steps.
type stepOutput struct {
	progress.Sink

	mu   sync.Mutex
	text bytes.Buffer
}

// Log implements progress.Sink.
func (o *stepOutput) Log(l progress.Log) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(l.Data)
}

// last returns the last line of the output.
func (o *stepOutput) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(o.text.String()), "\n")
	return lines[len(lines)-1]
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// trialStep runs the hidden command with the same global flags and returns its report.
func trialStep(ctx context.Context, c *cli.Context) trialReport {
	self, err := os.Executable()
	if err != nil {
		return trialReport{Step: oneLine(err)}
	}
	args := []string{}
	for _, name := range []string{rootFlag, runrootFlag} {
		if value := c.String(name); value != "" {
			args = append(args, "--"+name, value)
		}
	}
	out, err := exec.CommandContext(ctx, self, append(args, stepProbe)...).Output()
	var report trialReport
	if err == nil {
		err = json.Unmarshal(out, &report)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
		return trialReport{Step: strings.TrimPrefix(strings.Join(strings.Fields(string(exit.Stderr)), " "), "shale: ")}
	}
	if err != nil {
		return trialReport{Step: oneLine(err)}
	}
	return report
}

// results returns the report as rows of doctor's table.
func (r trialReport) results() []probe.Result {
	layers := probe.Result{Name: "layers", Status: probe.OK, Detail: "overlays"}
	switch {
	case r.GraphRoot == "":
		layers.Status, layers.Detail = probe.Missing, "cannot be tried: the store cannot be opened"
	case r.Native:
		layers.Status, layers.Fix = probe.Degraded, r.LayersFix
		layers.Detail = "files are copied, which is slower: " + r.Detail
	case !r.OneByOne:
		layers.Status, layers.Detail = probe.Degraded, "overlays, without: layers one by one (Linux 6.8)"
	}
	step := probe.Result{Name: stepResult, Status: probe.OK, Detail: "an image of two steps was built"}
	if r.Step != "" {
		step.Status, step.Detail, step.Fix = probe.Missing, r.Step, r.StepFix
	}
	results := []probe.Result{layers, step}
	if r.GraphRoot != "" {
		results = append(results, gcResult(r.GraphRoot, os.Getenv(gcEnv)))
	}
	return results
}

// stepResult is the name of the result that decides whether images can be built.
const stepResult = "step"
