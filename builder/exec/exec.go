package exec

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/cdi"
	"github.com/shale-build/shale/builder/fileop"
	"github.com/shale-build/shale/builder/identity"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/rootfs"
	"github.com/shale-build/shale/builder/secrets"
	"github.com/shale-build/shale/builder/solve"
	"github.com/shale-build/shale/builder/source/local"
	"github.com/shale-build/shale/builder/sshagent"
	"github.com/shale-build/shale/runtime/recorded"
	"github.com/shale-build/shale/runtime/sandbox"
)

// defaultHostname is the hostname that BuildKit gives a RUN step.
const defaultHostname = "buildkitsandbox"

// Runner runs commands in root file systems.
type Runner interface {
	// Run runs one command and returns its exit status, see sandbox.Runner.
	Run(ctx context.Context, s sandbox.Spec) (int, error)
	// Unavailable returns the names of the limits in l that cannot be applied, and the
	// reason.
	Unavailable(ctx context.Context, l sandbox.Limits) (names []string, why string)
}

// Executor runs the RUN steps of one build. It is safe for concurrent use.
type Executor struct {
	Mounts   *rootfs.Mounter
	Runner   Runner
	Caches   *cachemount.Caches
	Network  Network
	Allowed  Allowed
	SingleID bool
	// Ownership controls how much of the recorded ownership steps see. The owners
	// themselves come from Mounts.
	Ownership recorded.Tier
	// Secrets and Agents are the secrets and ssh agents that steps may request. They are
	// nil if there are none.
	Secrets *secrets.Store
	Agents  *sshagent.Agents
	Logger  *slog.Logger

	mu     sync.Mutex
	copies map[copyKey]func() (copied, error)
	// noticed is set after the warning about limits that cannot be applied.
	noticed bool
	// devices is nil until a step requests a device.
	devices *cdi.Registry
}

// Prepare sets up the network of v and warns about limits of v that this machine cannot
// apply. It must be called before Run.
func (e *Executor) Prepare(ctx context.Context, v *llb.Vertex) error {
	e.limits(ctx, v)
	_, err := e.network(ctx, v.Exec.GetNetwork())
	return err
}

// Run runs v and returns the layer with the changes to its root. The base of the root may
// be a draft, and so may the result. The other inputs that v mounts must be in the store.
// Run returns an ExitError if the process failed, a DeniedError if an entitlement was not
// granted, and an UnsupportedError if a part of v is not supported.
func (e *Executor) Run(ctx context.Context, v *llb.Vertex, inputs []solve.Snapshot, report solve.Reporter) (*rootfs.Draft, error) {
	if err := e.permit(v); err != nil {
		return nil, err
	}
	base, err := rootLayer(v, inputs)
	if err != nil {
		return nil, err
	}
	return e.Mounts.Create(ctx, base, func(ctx context.Context, root string) error {
		return e.step(ctx, v, inputs, root, report)
	})
}

func (e *Executor) step(ctx context.Context, v *llb.Vertex, inputs []solve.Snapshot, root string, report solve.Reporter) (err error) {
	dir, err := e.Mounts.NewDir("mounts")
	if err != nil {
		return err
	}
	mounts := &mountSet{exec: e, dir: dir, vertex: v, inputs: inputs}
	defer func() { err = errors.Join(err, mounts.close()) }()
	if err := mounts.prepare(ctx); err != nil {
		return err
	}
	spec, err := e.spec(ctx, v, root, mounts)
	if err != nil {
		return err
	}
	var beyond atomic.Bool
	code, err := e.run(ctx, spec, secrets.NewMask(mounts.masked...), report, &beyond)
	if start, ok := errors.AsType[*sandbox.ExecError](err); ok {
		return &ExitError{Args: spec.Args, Code: start.Code, Reason: start.Message + foreignHint(v, start.Message)}
	}
	if err != nil {
		return err
	}
	if code != 0 {
		failed := &ExitError{Args: v.Exec.GetMeta().GetArgs(), Code: code}
		if beyond.Load() && spec.Owners == nil {
			failed.Hint = beyondHint
		}
		return failed
	}
	return nil
}

// run runs the container and returns its exit status. The secrets of the step are masked
// in its output. run sets beyond if the output shows that an id is not mapped.
func (e *Executor) run(ctx context.Context, spec sandbox.Spec, mask *secrets.Mask, report solve.Reporter, beyond *atomic.Bool) (code int, err error) {
	stdout, stderr := mask.Writer(report.Stdout()), mask.Writer(report.Stderr())
	defer func() { err = errors.Join(err, stdout.Close(), stderr.Close()) }()
	out, errs := &beyondWatch{w: stdout, seen: beyond}, &beyondWatch{w: stderr, seen: beyond}
	defer func() { out.look(); errs.look() }()
	spec.Stdout, spec.Stderr = out, errs
	return e.Runner.Run(ctx, spec)
}

// foreignHint returns a hint if v is for another platform and no emulator for it is
// registered.
func foreignHint(v *llb.Vertex, message string) string {
	if v.Platform == nil || !strings.Contains(message, "exec format error") {
		return ""
	}
	if platforms.Only(platforms.DefaultSpec()).Match(*v.Platform) {
		return ""
	}
	return fmt.Sprintf(": the step is for %s, and this machine (%s) has no emulator registered for it; install qemu-user-static and binfmt-support",
		platforms.Format(*v.Platform), platforms.DefaultString())
}

func (e *Executor) spec(ctx context.Context, v *llb.Vertex, root string, mounts *mountSet) (sandbox.Spec, error) {
	meta := v.Exec.GetMeta()
	user, err := identity.Resolve(root, meta.GetUser())
	if err != nil {
		// The message is BuildKit's, because users search the web for it.
		return sandbox.Spec{}, fmt.Errorf("process %q did not complete successfully: %w", strings.Join(meta.GetArgs(), " "), err)
	}
	ulimits, err := rlimits(meta.GetUlimit())
	if err != nil {
		return sandbox.Spec{}, err
	}
	secretEnv, err := mounts.secretEnv()
	if err != nil {
		return sandbox.Spec{}, err
	}
	hostname := meta.GetHostname()
	if hostname == "" {
		hostname = defaultHostname
	}
	spec := sandbox.Spec{
		Rootfs:         root,
		Args:           meta.GetArgs(),
		Env:            slices.Concat(meta.GetEnv(), proxyEnv(meta.GetProxyEnv()), secretEnv),
		Cwd:            meta.GetCwd(),
		UID:            user.UID,
		GID:            user.GID,
		AdditionalGIDs: user.AdditionalGIDs,
		Hostname:       hostname,
		Mounts:         mounts.list,
		ShmSize:        mounts.shmSize,
		Rlimits:        ulimits,
		Limits:         e.limits(ctx, v),
		Privileged:     v.Exec.GetSecurity() == pb.SecurityMode_INSECURE,
		SingleID:       e.SingleID,
		Owners:         e.Mounts.Owners(),
		Ownership:      e.Ownership,
		Upper:          e.Mounts.Upper(root),
		Grace:          grace,
	}
	if e.Mounts.InPlace() && !slices.ContainsFunc(spec.Env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		// libcontainer sets HOME in the same way.
		spec.Env = append(spec.Env, "HOME="+cmp.Or(user.Home, "/"))
	}
	if err := mounts.attachDevices(ctx, &spec); err != nil {
		return spec, err
	}
	return spec, e.connect(ctx, &spec, v.Exec, mounts.dir)
}

// proxyEnv returns every proxy variable in upper case and lower case, as docker does,
// because some tools read only one of them.
func proxyEnv(p *pb.ProxyEnv) []string {
	var env []string
	for _, kv := range []struct{ name, value string }{
		{"http_proxy", p.GetHttpProxy()},
		{"https_proxy", p.GetHttpsProxy()},
		{"ftp_proxy", p.GetFtpProxy()},
		{"no_proxy", p.GetNoProxy()},
		{"all_proxy", p.GetAllProxy()},
	} {
		if kv.value != "" {
			env = append(env, strings.ToUpper(kv.name)+"="+kv.value, kv.name+"="+kv.value)
		}
	}
	return env
}

// rootLayer returns the layer that the step starts from.
func rootLayer(v *llb.Vertex, inputs []solve.Snapshot) (rootfs.Base, error) {
	for _, m := range v.Exec.GetMounts() {
		if m.GetDest() != pb.RootMount {
			continue
		}
		if m.GetReadonly() || m.GetOutput() != 0 {
			return rootfs.Base{}, &UnsupportedError{What: "a read-only root file system", Why: "RUN always writes to it"}
		}
		if m.GetInput() < 0 {
			return rootfs.Base{}, nil
		}
		return Base(inputs[m.GetInput()]), nil
	}
	return rootfs.Base{}, errors.New("the step has no root file system")
}

// Base converts snap to the base of a new layer.
func Base(snap solve.Snapshot) rootfs.Base {
	draft, _ := snap.Draft.(*rootfs.Draft)
	return rootfs.Base{Layer: snap.Layer, Chain: snap.Chain, Draft: draft}
}

// materialize copies the path selector of a build context into a private directory, once
// per build. Steps see the copy with root as its owner, even if the context changes
// during the build. It returns the directory and the path of the copy in it.
func (e *Executor) materialize(ctx context.Context, tree *local.Tree, selector string) (dir, path string, err error) {
	key := copyKey{tree: tree, selector: filepath.Clean("/" + selector)}
	e.mu.Lock()
	if e.copies == nil {
		e.copies = map[copyKey]func() (copied, error){}
	}
	once := e.copies[key]
	if once == nil {
		once = sync.OnceValues(func() (copied, error) { return e.copyTree(ctx, key) })
		e.copies[key] = once
	}
	e.mu.Unlock()
	c, err := once()
	return c.dir, c.path, err
}

type copyKey struct {
	tree     *local.Tree
	selector string
}

type copied struct{ dir, path string }

func (e *Executor) copyTree(ctx context.Context, key copyKey) (copied, error) {
	dir, err := e.Mounts.NewDir("context")
	if err != nil {
		return copied{}, err
	}
	// The directory has the same mode as with docker, because steps see it.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // its parent is private
		return copied{}, fmt.Errorf("make directory for the build context: %w", err)
	}
	at, err := fileop.Materialize(ctx, key.tree, key.selector, dir, fileop.Options{Logger: e.Logger})
	if err != nil {
		return copied{}, err
	}
	rel, err := filepath.Rel(dir, at)
	if err != nil {
		return copied{}, fmt.Errorf("find the copy of the build context: %w", err)
	}
	return copied{dir: dir, path: "/" + rel}, nil
}
