package solve_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/progress"
	"github.com/shale-build/shale/builder/solve"
	"github.com/shale-build/shale/builder/source/local"
)

// world is an executor. Each step returns a layer whose name contains the command of the
// step.
type world struct {
	mu     sync.Mutex
	ran    []string
	layers map[string]bool
	// content is the content that a command produces. The default is its arguments and
	// the chains of its inputs.
	content map[string]string
	// view is the file content that every snapshot shows.
	view string
	// before is called when a step starts.
	before map[string]func(ctx context.Context) error
	// packing is called when the result of a step is packed.
	packing map[string]func() error
}

// draft is the result of a step. It is packed and recorded in the background.
type draft struct {
	chain digest.Digest
	done  chan struct{}
	err   error
}

func (d *draft) Chain(ctx context.Context) (digest.Digest, error) {
	select {
	case <-d.done:
		return d.chain, d.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (d *draft) Layer(ctx context.Context) (string, error) {
	chain, err := d.Chain(ctx)
	return chain.String(), err
}

func (d *draft) Failed() error {
	select {
	case <-d.done:
		return d.err
	default:
		return nil
	}
}

func newWorld() *world {
	return &world{layers: map[string]bool{}, content: map[string]string{}, before: map[string]func(context.Context) error{}, packing: map[string]func() error{}}
}

func (w *world) Source(_ context.Context, v *llb.Vertex, _ solve.Reporter) (solve.Source, error) {
	return solve.Source{
		Chain: digest.FromString(v.Source.GetIdentifier()),
		Fetch: func(context.Context, solve.Reporter) (string, error) {
			w.note("fetch " + v.Source.GetIdentifier())
			return v.Source.GetIdentifier(), nil
		},
	}, nil
}

func (w *world) Prepare(context.Context, *llb.Vertex) error { return nil }

func (w *world) Run(ctx context.Context, v *llb.Vertex, inputs []solve.Snapshot, _ solve.Reporter) (solve.Snapshot, error) {
	w.note(v.Name)
	if f := w.before[v.Name]; f != nil {
		if err := f(ctx); err != nil {
			return solve.Snapshot{}, err
		}
	}
	d := &draft{done: make(chan struct{})}
	go func() {
		defer close(d.done)
		d.chain, d.err = w.pack(v.Name, inputs)
	}()
	return solve.Snapshot{Draft: d}, nil
}

func (w *world) pack(name string, inputs []solve.Snapshot) (digest.Digest, error) {
	if f := w.packing[name]; f != nil {
		if err := f(); err != nil {
			return "", err
		}
	}
	content, ok := w.content[name]
	if !ok {
		content = name
	}
	for _, in := range inputs {
		in, err := in.Settled(context.Background())
		if err != nil {
			return "", err
		}
		content += " on " + in.Chain.String()
	}
	id := digest.FromString(content)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.layers[id.String()] = true
	return id, nil
}

func (w *world) View(ctx context.Context, _ *llb.Vertex, _ int, _ solve.Snapshot) (*local.Tree, error) {
	return local.Open(ctx, local.Options{Dir: w.view, KeepOwners: true})
}

func (w *world) LayerExists(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.layers[id]
}

func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ran = append(w.ran, what)
}

// took returns the steps that ran since the last call.
func (w *world) took() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	ran := w.ran
	w.ran = nil
	return ran
}

func image(ref string) *llb.Vertex {
	return &llb.Vertex{
		Digest: digest.FromString("image " + ref), Name: "FROM " + ref,
		Source: &pb.SourceOp{Identifier: "docker-image://" + ref},
	}
}

// run returns a step with the command cmd, which is also its name. Its root is the first
// input. Further inputs are mounted read-only.
func run(cmd string, inputs ...*llb.Vertex) *llb.Vertex {
	op := &pb.ExecOp{Meta: &pb.Meta{Args: []string{cmd}, Cwd: "/"}}
	v := &llb.Vertex{Name: cmd, Exec: op}
	id := cmd
	for i, in := range inputs {
		m := &pb.Mount{Input: int64(i), Dest: "/", Output: 0}
		if i > 0 {
			m = &pb.Mount{Input: int64(i), Dest: fmt.Sprintf("/in%d", i), Output: -1, Readonly: true}
		}
		op.Mounts = append(op.Mounts, m)
		v.Inputs = append(v.Inputs, llb.Output{Vertex: in})
		id += in.Digest.String()
	}
	v.Digest = digest.FromString(id)
	return v
}

type fixture struct {
	t     *testing.T
	dir   string
	world *world
	sink  *sink
	// reached is the return value of Reached after the last build.
	reached string
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, dir: t.TempDir(), world: newWorld()}
	f.world.view = t.TempDir()
	return f
}

// build solves target in a new build and returns the steps that ran.
func (f *fixture) build(target *llb.Vertex) ([]string, error) {
	f.t.Helper()
	ctx, cancel := context.WithCancelCause(f.t.Context())
	defer cancel(nil)
	index := cache.Open(f.dir)
	f.sink = &sink{seen: map[digest.Digest]progress.Vertex{}}
	s := solve.New(f.t.Context(), f.world, index, f.sink, slog.New(slog.NewTextHandler(io.Discard, nil)), cancel)
	g := &llb.Graph{Target: llb.Output{Vertex: target}}
	_, err := s.Solve(ctx, g)
	f.reached = s.Reached(ctx, g, func(v *llb.Vertex) int { return len(v.Inputs) - 1 })
	return f.world.took(), err
}

func (f *fixture) want(target *llb.Vertex, ran ...string) {
	f.t.Helper()
	got, err := f.build(target)
	if err != nil {
		f.t.Fatal(err)
	}
	if diff := cmp.Diff(ran, got); diff != "" {
		f.t.Errorf("what ran (-want +got):\n%s", diff)
	}
}

type sink struct {
	mu   sync.Mutex
	seen map[digest.Digest]progress.Vertex
}

func (s *sink) Vertex(v progress.Vertex) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[v.Digest] = v
}
func (s *sink) Status(progress.Status)   {}
func (s *sink) Log(progress.Log)         {}
func (s *sink) Warning(progress.Warning) {}

func TestUnchangedBuildRunsNothing(t *testing.T) {
	f := newFixture(t)
	graph := func() *llb.Vertex { return run("b", run("a", image("base"))) }
	f.want(graph(), "fetch docker-image://base", "a", "b")
	target := graph()
	f.want(target)
	for v := target; ; v = v.Inputs[0].Vertex {
		if shown := f.sink.seen[v.Digest]; !shown.Cached || shown.Completed == nil {
			t.Errorf("%s: shown as %+v, want cached", v.Name, shown)
		}
		if len(v.Inputs) == 0 {
			break
		}
	}
}

func TestChangedStepRunsWhatFollows(t *testing.T) {
	f := newFixture(t)
	f.want(run("c", run("b", run("a", image("base")))), "fetch docker-image://base", "a", "b", "c")
	f.want(run("c", run("B", run("a", image("base")))), "B", "c")
}

func TestOtherBaseRunsAll(t *testing.T) {
	f := newFixture(t)
	f.want(run("a", image("base")), "fetch docker-image://base", "a")
	f.want(run("a", image("other")), "fetch docker-image://other", "a")
}

func TestEarlyCutOff(t *testing.T) {
	f := newFixture(t)
	f.world.content["a"] = "same bytes"
	f.world.content["A"] = "same bytes"
	f.want(run("b", run("a", image("base"))), "fetch docker-image://base", "a", "b")
	f.want(run("b", run("A", image("base"))), "fetch docker-image://base", "A")
	// The result is also recorded under the definition key.
	f.want(run("b", run("A", image("base"))))
}

func TestSameFilesReadRunNothing(t *testing.T) {
	f := newFixture(t)
	write := func(content string) {
		if err := os.WriteFile(filepath.Join(f.world.view, "file"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := image("base")
	reads := func(cmd string) *llb.Vertex { return run("reader", base, run(cmd, base)) }
	write("one")
	f.want(reads("a"), "fetch docker-image://base", "a", "reader")
	// This is another layer with the same files.
	f.want(reads("b"), "fetch docker-image://base", "b")
	f.want(reads("b"))
	write("two")
	f.want(reads("c"), "fetch docker-image://base", "c", "reader")
}

func TestLostLayerIsMadeAgain(t *testing.T) {
	f := newFixture(t)
	graph := func() *llb.Vertex { return run("b", run("a", image("base"))) }
	f.want(graph(), "fetch docker-image://base", "a", "b")
	clear(f.world.layers)
	f.want(graph(), "fetch docker-image://base", "a", "b")
}

func TestIgnoreCache(t *testing.T) {
	f := newFixture(t)
	graph := func(ignore bool) *llb.Vertex {
		a := run("a", image("base"))
		a.IgnoreCache = ignore
		return run("b", a)
	}
	f.want(graph(false), "fetch docker-image://base", "a", "b")
	// a runs again. Its bytes are the same, so the result of b is found.
	f.want(graph(true), "fetch docker-image://base", "a")
	f.want(graph(false))
}

func TestSharedVertexRunsOnce(t *testing.T) {
	f := newFixture(t)
	shared := run("shared", image("base"))
	got, err := f.build(run("join", run("x", shared), run("y", shared)))
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, name := range got {
		count[name]++
	}
	want := map[string]int{"fetch docker-image://base": 1, "shared": 1, "x": 1, "y": 1, "join": 1}
	if diff := cmp.Diff(want, count); diff != "" {
		t.Errorf("what ran (-want +got):\n%s", diff)
	}
}

func TestIndependentStepsRunTogether(t *testing.T) {
	f := newFixture(t)
	// Each step waits for the other, so the build only ends if both run in parallel.
	var met sync.WaitGroup
	met.Add(2)
	meet := func(ctx context.Context) error {
		met.Done()
		done := make(chan struct{})
		go func() { met.Wait(); close(done) }()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	f.world.before["x"], f.world.before["y"] = meet, meet
	if _, err := f.build(run("join", run("x", image("base")), run("y", image("base")))); err != nil {
		t.Fatal(err)
	}
}

func TestFailureStopsOthers(t *testing.T) {
	f := newFixture(t)
	boom := errors.New("boom")
	var stopped atomic.Bool
	started := make(chan struct{})
	f.world.before["x"] = func(context.Context) error { <-started; return boom }
	f.world.before["y"] = func(ctx context.Context) error {
		close(started)
		<-ctx.Done()
		stopped.Store(true)
		return context.Cause(ctx)
	}
	target := run("join", run("y", image("base")), run("x", image("base")))
	_, err := f.build(target)
	if !errors.Is(err, boom) {
		t.Errorf("error is %v, want %v", err, boom)
	}
	if !stopped.Load() {
		t.Error("the other step was not stopped")
	}
	if got := f.sink.seen[target.Inputs[1].Vertex.Digest].Error; got != "boom" {
		t.Errorf("the failed step is shown with error %q", got)
	}
}

func TestStepRunsBesidePacking(t *testing.T) {
	f := newFixture(t)
	// a is packed only after b has started.
	started := make(chan struct{})
	f.world.packing["a"] = func() error { <-started; return nil }
	f.world.before["b"] = func(context.Context) error { close(started); return nil }
	f.want(run("b", run("a", image("base"))), "fetch docker-image://base", "a", "b")
	f.want(run("b", run("a", image("base"))))
}

func TestKnownOperationWaitsForPacking(t *testing.T) {
	f := newFixture(t)
	f.want(run("c", run("b", run("a", image("base")))), "fetch docker-image://base", "a", "b", "c")
	// b and c ran before. So they wait for the digest of A before they run again.
	f.world.content["A"] = "a"
	var packed atomic.Bool
	f.world.packing["A"] = func() error { time.Sleep(20 * time.Millisecond); packed.Store(true); return nil }
	f.want(run("c", run("b", run("A", image("base")))), "fetch docker-image://base", "A")
	f.world.content["A2"] = "something else"
	f.world.packing["A2"] = f.world.packing["A"]
	packed.Store(false)
	f.world.before["b"] = func(context.Context) error {
		if !packed.Load() {
			return errors.New("b did not wait")
		}
		return nil
	}
	f.want(run("c", run("b", run("A2", image("base")))), "fetch docker-image://base", "A2", "b", "c")
}

func TestFailureKeepsWhatWasDone(t *testing.T) {
	f := newFixture(t)
	failed := make(chan struct{})
	f.world.packing["a"] = func() error { <-failed; return nil }
	f.world.before["b"] = func(context.Context) error { close(failed); return errors.New("boom") }
	if _, err := f.build(run("b", run("a", image("base")))); err == nil {
		t.Fatal("no error")
	}
	done := f.reached
	f.want(run("B", run("a", image("base"))), "B")
	if f.want(run("a", image("base"))); done == "" || f.reached != done {
		t.Errorf("the build that failed had %q, the step gave %q", done, f.reached)
	}
	f.world.before["c"] = func(context.Context) error { return errors.New("boom") }
	if _, err := f.build(run("c", image("base"))); err == nil || f.reached != "" {
		t.Errorf("error %v, reached %q", err, f.reached)
	}
}

func TestPackingFails(t *testing.T) {
	f := newFixture(t)
	boom := errors.New("boom")
	failing := true
	started := make(chan struct{})
	f.world.packing["a"] = func() error {
		if failing {
			<-started
			return boom
		}
		return nil
	}
	f.world.before["b"] = func(ctx context.Context) error {
		if failing {
			close(started)
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return nil
	}
	target := run("b", run("a", image("base")))
	if _, err := f.build(target); !errors.Is(err, boom) {
		t.Errorf("error is %v, want %v", err, boom)
	}
	if got := f.sink.seen[target.Inputs[0].Vertex.Digest].Error; got != "boom" {
		t.Errorf("the step that was not packed is shown with error %q", got)
	}
	failing = false
	f.want(target, "fetch docker-image://base", "a", "b")
}

// If a draft fails, a step that builds on it may be the first to report the error.
func TestPackingFailsForThoseOnTop(t *testing.T) {
	f := newFixture(t)
	boom := errors.New("boom")
	f.world.packing["a"] = func() error { return boom }
	target := run("b", run("a", image("base")))
	f.world.before["b"] = func(context.Context) error {
		time.Sleep(10 * time.Millisecond)
		return fmt.Errorf("mount: %w", boom)
	}
	if _, err := f.build(target); !errors.Is(err, boom) || strings.Contains(err.Error(), "mount") {
		t.Errorf("error is %v, want that of the step below", err)
	}
}

func TestDeepGraph(t *testing.T) {
	f := newFixture(t)
	// Every step uses the step before it twice. A walk that visits shared vertices more
	// than once would take exponential time.
	v := run("0", image("base"))
	for i := 1; i < 300; i++ {
		v = run(fmt.Sprint(i), v, v)
	}
	if got, err := f.build(v); err != nil || len(got) != 301 {
		t.Fatalf("%d steps ran, error %v", len(got), err)
	}
	f.want(v)
}

func TestKeysDiffer(t *testing.T) {
	// Each variant changes one field that must change the key.
	variants := map[string]func(op *pb.ExecOp){
		"nothing":     func(*pb.ExecOp) {},
		"args":        func(op *pb.ExecOp) { op.Meta.Args = []string{"a", "b"} },
		"joined args": func(op *pb.ExecOp) { op.Meta.Args = []string{"a b"} },
		"env":         func(op *pb.ExecOp) { op.Meta.Env = []string{"X=1"} },
		"cwd":         func(op *pb.ExecOp) { op.Meta.Cwd = "/w" },
		"user":        func(op *pb.ExecOp) { op.Meta.User = "1" },
		"network":     func(op *pb.ExecOp) { op.Network = pb.NetMode_NONE },
		"hostname":    func(op *pb.ExecOp) { op.Meta.Hostname = "h" },
		"host name":   func(op *pb.ExecOp) { op.Meta.ExtraHosts = []*pb.HostIP{{Host: "h", IP: "1.1.1.1"}} },
		"mount target": func(op *pb.ExecOp) {
			op.Mounts = append(op.Mounts, &pb.Mount{Input: -1, Dest: "/t", MountType: pb.MountType_TMPFS, Output: -1})
		},
		"mount type": func(op *pb.ExecOp) {
			op.Mounts = append(op.Mounts, &pb.Mount{Input: -1, Dest: "/t", MountType: pb.MountType_CACHE, Output: -1})
		},
	}
	// Each variant changes one field that must not change the key.
	same := map[string]func(op *pb.ExecOp){
		"proxy":   func(op *pb.ExecOp) { op.Meta.ProxyEnv = &pb.ProxyEnv{HttpProxy: "p"} },
		"ulimit":  func(op *pb.ExecOp) { op.Meta.Ulimit = []*pb.Ulimit{{Name: "nofile", Soft: 1, Hard: 1}} },
		"address": func(op *pb.ExecOp) { op.Meta.ExtraHosts = nil },
	}
	build := func(f *fixture, change func(op *pb.ExecOp)) []string {
		v := run("a", image("base"))
		change(v.Exec)
		got, err := f.build(v)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	f := newFixture(t)
	for name, change := range variants {
		if got := build(f, change); len(got) == 0 {
			t.Errorf("a change of %s was taken for no change", name)
		}
	}
	for name, change := range same {
		if got := build(f, change); len(got) != 0 {
			t.Errorf("a change of %s made %v run", name, got)
		}
	}
}
