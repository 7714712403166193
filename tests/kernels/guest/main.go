// Command guest runs the cases of /stage/plan.json in a virtual machine that
// tests/kernels booted. systemd starts it as root. It writes one line of JSON for each
// result to a virtio serial port. Do not run it elsewhere: it makes file systems, an NFS
// server and containers, and does not remove them.
package main

import (
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/shale-build/shale/tests/kernels/plan"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

// guest runs the cases of a plan and sends their results to the host.
type guest struct {
	plan   plan.Plan
	chosen *regexp.Regexp
	// mu serializes writes to results.
	mu      sync.Mutex
	results *json.Encoder
	// images is the directory of the base images.
	images string
}

func run() error {
	if os.Getenv("SHALE_REGISTRY") == "" {
		return serve()
	}
	port, err := os.OpenFile(filepath.Join("/dev/virtio-ports", plan.Port), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer port.Close()
	g := &guest{results: json.NewEncoder(port), images: os.Getenv(envImages)}
	err = g.run()
	last := plan.Result{Case: "end", Passed: err == nil, Done: true}
	if err != nil {
		last.Why = err.Error()
	}
	return g.results.Encode(last)
}

func (g *guest) run() error {
	file, err := os.Open(filepath.Join(plan.Stage, plan.File))
	if err != nil {
		return err
	}
	defer file.Close()
	if err := json.NewDecoder(file).Decode(&g.plan); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	if g.chosen, err = regexp.Compile(g.plan.Run); err != nil {
		return err
	}
	disks, err := g.makeDisks()
	if err != nil {
		return err
	}
	for _, selected := range g.plan.Environments {
		e, ok := environments[selected.Name]
		if !ok {
			return fmt.Errorf("unknown environment %q", selected.Name)
		}
		e.name, e.selected = selected.Name, selected.Selection
		if e.user != "" {
			// Without lingering, each login starts the user's systemd manager and waits
			// for it.
			if out, err := command("loginctl", "enable-linger", e.user).CombinedOutput(); err != nil {
				return fmt.Errorf("keep the manager of %s: %w: %s", e.user, err, out)
			}
		}
		g.checks(e, disks)
		g.suites(e)
	}
	return nil
}

// wants reports whether the case name must run in e.
func (g *guest) wants(e environment, name string) bool {
	return g.chosen.MatchString(e.name + "/" + name)
}

// report sends a result. If the port does not accept it, the host is gone, and only a
// message is printed.
func (g *guest) report(r plan.Result) {
	r.Why = tail(r.Why)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.results.Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
}

// try runs a script of guest/checks in an environment and reports the result.
func (g *guest) try(e environment, name, script string, args ...string) {
	if !g.wants(e, name) {
		return
	}
	began := time.Now()
	cmd := e.command(append([]string{"sh", filepath.Join(plan.Stage, "checks", script+".sh")}, args...), "IMAGES="+g.images, "KEY="+key, "ENVIRONMENT="+e.name, "OUTSIDE="+g.plan.Outside)
	out, err := cmd.CombinedOutput()
	r := plan.Result{Environment: e.name, Case: name, Passed: err == nil, Seconds: time.Since(began).Seconds()}
	if r.Why = string(out); r.Passed {
		r.Why = said(r.Why)
	}
	g.report(r)
}

// said returns the notes of a script that passed: its lines that begin with "note: ".
func said(output string) string {
	var notes []string
	for line := range strings.Lines(output) {
		if note, ok := strings.CutPrefix(strings.TrimSpace(line), "note: "); ok {
			notes = append(notes, note)
		}
	}
	return strings.Join(notes, "; ")
}

// tail returns the end of an output, which contains the reason of a failure.
func tail(output string) string {
	const most = 4000
	output = strings.TrimSpace(output)
	if len(output) > most {
		output = "… " + output[len(output)-most:]
	}
	return output
}

// checks runs the checks and then the store cases. Two of them run at a time, because
// emulated processors are slow and a case waits often. Checks that change the machine run
// alone, after the others.
func (g *guest) checks(e environment, disks map[string]disk) {
	var together, alone []func()
	for _, name := range e.selected.Checks {
		switch run := func() { g.try(e, "check/"+name, name) }; name {
		case "airgapped":
			alone = append(alone, func() { g.withoutRoute(e, "check/"+name, run) })
		case "apparmor":
			alone = append(alone, run)
		default:
			together = append(together, run)
		}
	}
	for _, name := range e.selected.Stores {
		if d, ok := disks[name]; !ok || d.err != nil {
			g.report(plan.Result{Environment: e.name, Case: "store/" + name, Why: fmt.Sprintf("the file system could not be made: %v", d.err)})
			continue
		}
		together = append(together, func() { g.try(e, "store/"+name, "store", filepath.Join(mounts, name, e.name)) })
	}
	var group errgroup.Group
	group.SetLimit(2)
	for _, run := range together {
		group.Go(func() error { run(); return nil })
	}
	_ = group.Wait()
	for _, run := range alone {
		run()
	}
}

// withoutRoute runs a case while the machine has no default route.
func (g *guest) withoutRoute(e environment, name string, run func()) {
	route, err := command("ip", "route", "show", "default").Output()
	if err == nil && len(route) == 0 {
		err = errors.New("there is none")
	}
	if err == nil {
		err = command("ip", "route", "del", "default").Run()
	}
	if err != nil {
		g.report(plan.Result{Environment: e.name, Case: name, Why: fmt.Sprintf("delete the default route: %v", err)})
		return
	}
	run()
	if out, err := command("ip", append([]string{"route", "add"}, strings.Fields(string(route))...)...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "guest: add the default route again: %v: %s\n", err, out)
	}
}

// envImages is the environment variable for the directory of the base images.
const envImages = "GUEST_IMAGES"

// serve starts this program again while registries are running. The open registry has the
// same address in every machine and on the host, so that builds give the same images.
func serve() error {
	images, err := baseImages()
	if err != nil {
		return err
	}
	if err := makeRootfs(images); err != nil {
		return err
	}
	if err := makeKey(); err != nil {
		return err
	}
	cmd := command(filepath.Join(plan.Stage, "testbed"), "serve", "-addr", plan.Registry, "-images", images, "--", filepath.Join(plan.Stage, "guest"))
	cmd.Env = append(os.Environ(), envImages+"="+images)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// key is the path of an SSH key for steps. It is below mounts because containers get that
// directory too.
const key = mounts + "/key"

// makeKey writes a new key to that path. It does not call ssh-keygen, because SELinux
// does not let ssh-keygen write there.
func makeKey() error {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(mounts, 0o755); err != nil {
		return err
	}
	// All users may read it, because the key gives access to no account.
	return os.WriteFile(key, pem.EncodeToMemory(block), 0o644)
}

// baseImages returns the directory of the base images. If the stage has none, baseImages
// makes them: the host cannot make images of another architecture.
func baseImages() (string, error) {
	images := filepath.Join(plan.Stage, "images")
	if exists(images) {
		return images, nil
	}
	for _, name := range []string{"busybox", "special", "foreign", "multi"} {
		out, err := command(filepath.Join(plan.Stage, "testbed"), "images", "-cache", imageCache, "-only", name).Output()
		if err != nil {
			return "", fmt.Errorf("make base image %s: %w", name, err)
		}
		images = strings.TrimSpace(string(out))
	}
	return images, nil
}
