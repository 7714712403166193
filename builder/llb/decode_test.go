package llb

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// definition marshals ops in order. An input digest of "0", "1", … stands for the op with
// that index. definition appends the entry for the result.
func definition(t testing.TB, ops ...*pb.Op) *pb.Definition {
	t.Helper()
	def := &pb.Definition{Metadata: map[string]*pb.OpMetadata{}}
	ops = append(ops, &pb.Op{Inputs: []*pb.Input{{Digest: string(rune('0' + len(ops) - 1))}}})
	var digests []digest.Digest
	for _, op := range ops {
		for _, in := range op.Inputs {
			if len(in.Digest) == 1 && int(in.Digest[0]-'0') < len(digests) {
				in.Digest = string(digests[in.Digest[0]-'0'])
			}
		}
		dt, err := op.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		def.Def = append(def.Def, dt)
		digests = append(digests, digest.FromBytes(dt))
	}
	return def
}

func source(id string, attrs ...string) *pb.Op {
	op := &pb.SourceOp{Identifier: id}
	for i := 0; i < len(attrs); i += 2 {
		if op.Attrs == nil {
			op.Attrs = map[string]string{}
		}
		op.Attrs[attrs[i]] = attrs[i+1]
	}
	return &pb.Op{Op: &pb.Op_Source{Source: op}}
}

func input(name string) []*pb.Input { return []*pb.Input{{Digest: name}} }

// exec returns an operation that runs a command on input 0, altered by change.
func exec(change func(*pb.ExecOp)) *pb.Op {
	op := &pb.ExecOp{
		Meta:   &pb.Meta{Args: []string{"x"}, Cwd: "/"},
		Mounts: []*pb.Mount{{Dest: "/"}},
	}
	if change != nil {
		change(op)
	}
	return &pb.Op{Inputs: input("0"), Op: &pb.Op_Exec{Exec: op}}
}

func mount(m *pb.Mount) *pb.Op {
	return exec(func(op *pb.ExecOp) { op.Mounts = append(op.Mounts, m) })
}

func file(actions ...*pb.FileAction) *pb.Op {
	return &pb.Op{Inputs: input("0"), Op: &pb.Op_File{File: &pb.FileOp{Actions: actions}}}
}

func mkdir(change func(*pb.FileAction, *pb.FileActionMkDir)) *pb.Op {
	m := &pb.FileActionMkDir{Path: "/d", Mode: 0o755, Timestamp: -1}
	a := &pb.FileAction{SecondaryInput: -1, Action: &pb.FileAction_Mkdir{Mkdir: m}}
	if change != nil {
		change(a, m)
	}
	return file(a)
}

func copyOf(c *pb.FileActionCopy) *pb.Op {
	return file(&pb.FileAction{Input: -1, Action: &pb.FileAction_Copy{Copy: c}})
}

func TestDecode(t *testing.T) {
	base := source("docker-image://docker.io/library/busybox:latest")
	base.Platform = &pb.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	run := mount(&pb.Mount{Input: -1, Dest: "/out", Output: 1})
	merge := &pb.Op{
		Inputs: []*pb.Input{{Digest: "1"}, {Digest: "1", Index: 1}},
		Op:     &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{}, {Input: 1}}}},
	}
	def := definition(t, base, run, merge)
	runDigest := digest.FromBytes(def.Def[1]).String()
	def.Metadata[runDigest] = &pb.OpMetadata{
		IgnoreCache:   true,
		Description:   map[string]string{CustomName: "RUN x"},
		ProgressGroup: &pb.ProgressGroup{Id: "random", Name: "group"},
		Caps:          map[string]bool{string(pb.CapExecMetaBase): true},
	}
	def.Source = &pb.Source{
		Infos:     []*pb.SourceInfo{{Filename: "Dockerfile", Data: []byte("FROM busybox\nRUN x\n")}},
		Locations: map[string]*pb.Locations{runDigest: {Locations: []*pb.Location{{Ranges: []*pb.Range{{Start: &pb.Position{Line: 2}, End: &pb.Position{Line: 2}}}}}}},
	}
	g, err := Decode(def)
	if err != nil {
		t.Fatal(err)
	}
	text, err := g.Text()
	if err != nil {
		t.Fatal(err)
	}
	want := `0 docker-image://docker.io/library/busybox:latest
  platform: linux/arm/v7
  source {"identifier":"docker-image://docker.io/library/busybox:latest"}
1 RUN x
  inputs: 0
  group: group
  no cache
  at Dockerfile:2-2
  exec {"meta":{"args":["x"],"cwd":"/","proxyEnv":{}},"mounts":[{"dest":"/"},{"input":"-1","dest":"/out","output":"1"}]}
2 merge of 2
  inputs: 1 1[1]
  merge {"inputs":[{},{"input":"1"}]}
result: 2
`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	var b bytes.Buffer
	for _, s := range errdefs.Sources(WithSource(errors.New("boom"), g.Vertices[1])) {
		if err := s.Print(&b); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(b.String(), ">>> RUN x") {
		t.Errorf("excerpt:\n%s", b.String())
	}
}

func TestDecodeEmpty(t *testing.T) {
	terminal := &pb.Definition{Def: [][]byte{{}}}
	for _, def := range []*pb.Definition{nil, {}, terminal} {
		g, err := Decode(def)
		if err != nil || g.Target.Vertex != nil || len(g.Vertices) != 0 {
			t.Errorf("%v: %+v, %v", def, g, err)
		}
	}
}

// TestDecodeCopies changes the definition after Decode.
func TestDecodeCopies(t *testing.T) {
	def := definition(t, source("local://context"))
	def.Source = &pb.Source{Infos: []*pb.SourceInfo{{Data: []byte("before")}}}
	def.Metadata[digest.FromBytes(def.Def[0]).String()] = &pb.OpMetadata{Description: map[string]string{CustomName: "before"}}
	g, err := Decode(def)
	if err != nil {
		t.Fatal(err)
	}
	for _, dt := range def.Def {
		clear(dt)
	}
	for _, md := range def.Metadata {
		md.Description[CustomName] = "after"
	}
	copy(def.Source.Infos[0].Data, "after!")
	v := g.Vertices[0]
	if v.Name != "before" || v.Description[CustomName] != "before" || v.Source.Identifier != "local://context" || string(g.Sources[0].Data) != "before" {
		t.Errorf("the graph changed with its definition: %+v", v)
	}
}

func TestDecodeErrors(t *testing.T) {
	base := func() *pb.Op { return source("docker-image://busybox") }
	for _, tc := range []struct {
		name string
		ops  []*pb.Op
		want string
	}{
		{"build", []*pb.Op{{Op: &pb.Op_Build{Build: &pb.BuildOp{}}}}, "not supported"},
		{"diff", []*pb.Op{{Op: &pb.Op_Diff{Diff: &pb.DiffOp{}}}}, "not supported"},
		{"passthrough", []*pb.Op{{Op: &pb.Op_Passthrough{Passthrough: &pb.PassthroughOp{}}}}, "not supported"},
		{"no operation", []*pb.Op{{}}, "without an operation"},
		{"dangling", []*pb.Op{{Inputs: input("sha256:nope"), Op: &pb.Op_Merge{Merge: &pb.MergeOp{}}}}, `no operation "sha256:nope"`},
		{"constraints", []*pb.Op{{Op: base().Op, Constraints: &pb.WorkerConstraints{Filter: []string{"x"}}}}, "worker constraints"},
		{"scheme", []*pb.Op{source("ftp://x")}, "unknown kind"},
		{"no scheme", []*pb.Op{source("busybox")}, "unknown kind"},
		{"no name", []*pb.Op{source("local://")}, "names nothing"},
		{"attribute", []*pb.Op{source("local://x", "local.new", "1")}, "unknown attribute"},
		{"layer limit", []*pb.Op{source("docker-image://x", pb.AttrImageLayerLimit, "1")}, "unknown attribute"},
		{"other scheme's attribute", []*pb.Op{source("local://x", pb.AttrHTTPFilename, "1")}, "unknown attribute"},
		{"header of a local", []*pb.Op{source("local://x", "http.header.a", "1")}, "unknown attribute"},
		{"NUL in a name", []*pb.Op{source("local://x\x00y")}, "NUL"},
		{"source with input", []*pb.Op{base(), {Inputs: input("0"), Op: source("local://x").Op}}, "source with inputs"},
		{"no command", []*pb.Op{base(), exec(func(op *pb.ExecOp) { op.Meta.Args = nil })}, "without a command"},
		{"no meta", []*pb.Op{base(), exec(func(op *pb.ExecOp) { op.Meta = nil })}, "without a command"},
		{"NUL in env", []*pb.Op{base(), exec(func(op *pb.ExecOp) { op.Meta.Env = []string{"A=\x00"} })}, "NUL"},
		{"relative cwd", []*pb.Op{base(), exec(func(op *pb.ExecOp) { op.Meta.Cwd = "x" })}, "not absolute"},
		{"network", []*pb.Op{base(), exec(func(op *pb.ExecOp) { op.Network = 9 })}, "network mode"},
		{"security", []*pb.Op{base(), exec(func(op *pb.ExecOp) { op.Security = 9 })}, "security mode"},
		{"no root", []*pb.Op{base(), exec(func(op *pb.ExecOp) { op.Mounts = nil })}, "0 root mounts"},
		{"two roots", []*pb.Op{base(), mount(&pb.Mount{Dest: "/x/..", Output: -1})}, "2 root mounts"},
		{"tmpfs root", []*pb.Op{base(), mount(&pb.Mount{Dest: "//", MountType: pb.MountType_TMPFS})}, "cannot be the root"},
		{"mount type", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", MountType: 7})}, "unknown mount type"},
		{"mount input", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", Input: 1, Output: -1})}, "input 1"},
		{"mount input low", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", Input: -2, Output: -1})}, "input -2"},
		{"mount output twice", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m"})}, "given twice"},
		{"mount output high", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", Output: 5})}, "out of range"},
		{"mount output huge", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", Output: 1 << 62})}, "out of range"},
		{"mount output low", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", Output: -2})}, "output -2"},
		{"mount target", []*pb.Op{base(), mount(&pb.Mount{Dest: "../..", Output: -1})}, "2 root mounts"},
		{"mount by result", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", Output: -1, ResultID: "x"})}, "by result"},
		{"mount content cache", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", Output: -1, ContentCache: 9})}, "content cache"},
		{"cache without id", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", MountType: pb.MountType_CACHE})}, "without an id"},
		{"cache sharing", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "x", Sharing: 9}})}, "sharing mode"},
		{"secret without id", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", MountType: pb.MountType_SECRET})}, "without an id"},
		{"ssh without options", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", MountType: pb.MountType_SSH})}, "without options"},
		{"negative tmpfs", []*pb.Op{base(), mount(&pb.Mount{Dest: "/m", MountType: pb.MountType_TMPFS, TmpfsOpt: &pb.TmpfsOpt{Size: -1}})}, "size -1"},
		{"secret variable", []*pb.Op{base(), exec(func(op *pb.ExecOp) { op.Secretenv = []*pb.SecretEnv{{ID: "x"}} })}, "no variable"},
		{"no action", []*pb.Op{base(), file()}, "without an action"},
		{"empty action", []*pb.Op{base(), file(&pb.FileAction{})}, "no action"},
		{"no result", []*pb.Op{base(), mkdir(func(a *pb.FileAction, _ *pb.FileActionMkDir) { a.Output = -1 })}, "without a result"},
		{"rm", []*pb.Op{base(), file(&pb.FileAction{Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{}}})}, "not supported"},
		{"symlink", []*pb.Op{base(), file(&pb.FileAction{Action: &pb.FileAction_Symlink{Symlink: &pb.FileActionSymlink{}}})}, "not supported"},
		{"action input", []*pb.Op{base(), mkdir(func(a *pb.FileAction, _ *pb.FileActionMkDir) { a.Input = 1 })}, "input 1, of 1"},
		{"action second input", []*pb.Op{base(), mkdir(func(a *pb.FileAction, _ *pb.FileActionMkDir) { a.SecondaryInput = 1 << 40 })}, "second input"},
		{"action output", []*pb.Op{base(), mkdir(func(a *pb.FileAction, _ *pb.FileActionMkDir) { a.Output = 3 })}, "out of range"},
		{"mode", []*pb.Op{base(), mkdir(func(_ *pb.FileAction, m *pb.FileActionMkDir) { m.Mode = 0o10000 })}, "mode"},
		{"timestamp", []*pb.Op{base(), mkdir(func(_ *pb.FileAction, m *pb.FileActionMkDir) { m.Timestamp = -2 })}, "timestamp"},
		{"owner input", []*pb.Op{base(), mkdir(func(_ *pb.FileAction, m *pb.FileActionMkDir) {
			m.Owner = &pb.ChownOpt{Group: &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: "g", Input: 4}}}}
		})}, `owner "g"`},
		{"copy mode", []*pb.Op{base(), copyOf(&pb.FileActionCopy{Mode: -5})}, "mode -5"},
		{"copy NUL", []*pb.Op{base(), copyOf(&pb.FileActionCopy{IncludePatterns: []string{"\x00"}})}, "NUL"},
		{"empty merge", []*pb.Op{base(), {Inputs: input("0"), Op: &pb.Op_Merge{Merge: &pb.MergeOp{}}}}, "without an input"},
		{"merge input", []*pb.Op{base(), {Inputs: input("0"), Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{Input: 1}}}}}}, "merge of input 1"},
		{"output of a source", []*pb.Op{base(), {Inputs: []*pb.Input{{Digest: "0", Index: 1}}, Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{}}}}}}, "output 1"},
		{"negative output", []*pb.Op{base(), {Inputs: []*pb.Input{{Digest: "0", Index: -1}}, Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{}}}}}}, "output -1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Decode(definition(t, tc.ops...))
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want ErrInvalid with %q", err, tc.want)
			}
		})
	}
}

func TestDecodeBadDefinitions(t *testing.T) {
	good := func() *pb.Definition { return definition(t, source("local://x")) }
	head := digest.FromBytes(good().Def[0]).String()
	for _, tc := range []struct {
		name   string
		change func(*pb.Definition)
		want   string
	}{
		{"garbage", func(d *pb.Definition) { d.Def[0] = []byte{0xff} }, "unmarshal"},
		{"no terminal", func(d *pb.Definition) { d.Def = d.Def[:1] }, "not the result"},
		{"dangling result", func(d *pb.Definition) { d.Def = d.Def[1:] }, "no operation"},
		// Field 99 of type bytes, "x".
		{"unknown field", func(d *pb.Definition) { d.Def[1] = append(d.Def[1], 0x9a, 0x06, 0x01, 'x') }, "unknown to this version"},
		// The same in the source, which is field 3 of the operation.
		{"unknown field inside", func(d *pb.Definition) { d.Def[0] = append(d.Def[0], 0x1a, 0x04, 0x9a, 0x06, 0x01, 'x') }, "unknown to this version"},
		{"two results", func(d *pb.Definition) { d.Def[1] = append(d.Def[1], d.Def[1]...) }, "2 inputs"},
		{"capability", func(d *pb.Definition) {
			d.Metadata[head] = &pb.OpMetadata{Caps: map[string]bool{"future": true}}
		}, "unsupported capability"},
		{"location", func(d *pb.Definition) {
			d.Source = &pb.Source{Locations: map[string]*pb.Locations{head: {Locations: []*pb.Location{{SourceIndex: 1}}}}}
		}, "location in source file 1"},
		{"nil source file", func(d *pb.Definition) { d.Source = &pb.Source{Infos: []*pb.SourceInfo{nil}} }, "source file 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			def := good()
			tc.change(def)
			_, err := Decode(def)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want ErrInvalid with %q", err, tc.want)
			}
		})
	}
}

// TestCycle uses invented digests, because the digests of real operations cannot form a
// cycle.
func TestCycle(t *testing.T) {
	ops := map[digest.Digest]*pb.Op{"a": {Inputs: input("b")}, "b": {Inputs: input("a")}}
	if _, err := sorted(ops, "a"); err == nil || !strings.Contains(err.Error(), "depends on itself") {
		t.Errorf("error %v", err)
	}
}

func TestDeepGraph(t *testing.T) {
	ops := map[digest.Digest]*pb.Op{"0": {}}
	prev := digest.Digest("0")
	for range 200_000 {
		next := prev + "."
		if len(next) > 8 {
			next = digest.FromString(string(prev))
		}
		ops[next] = &pb.Op{Inputs: input(string(prev))}
		prev = next
	}
	order, err := sorted(ops, prev)
	if err != nil || len(order) != 200_001 || order[0] != "0" {
		t.Errorf("%d ordered, %v", len(order), err)
	}
}

func TestErrorHasLocation(t *testing.T) {
	def := definition(t, source("ftp://x"))
	def.Source = &pb.Source{
		Infos: []*pb.SourceInfo{{Filename: "Dockerfile", Data: []byte("FROM x\n")}},
		Locations: map[string]*pb.Locations{digest.FromBytes(def.Def[0]).String(): {Locations: []*pb.Location{
			{Ranges: []*pb.Range{{Start: &pb.Position{Line: 1}}, {}}},
		}}},
	}
	_, err := Decode(def)
	sources := errdefs.Sources(err)
	if len(sources) != 1 || len(sources[0].Ranges) != 1 || sources[0].Ranges[0].End.Line != 1 {
		t.Errorf("sources %v of %v", sources, err)
	}
}

// FuzzDecode also checks the guarantees for graphs that Decode returns.
func FuzzDecode(f *testing.F) {
	for _, def := range []*pb.Definition{
		definition(f, source("docker-image://busybox"), mount(&pb.Mount{Dest: "/m", Output: -1}), mkdir(nil)),
		definition(f, source("local://context", pb.AttrFollowPaths, `["a"]`), copyOf(&pb.FileActionCopy{Src: "/a", Dest: "/b", Mode: -1})),
		definition(f, source("docker-image://x"), &pb.Op{Inputs: input("0"), Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{}, {Input: -1}}}}}),
	} {
		dt, err := def.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(dt)
	}
	f.Fuzz(func(t *testing.T, dt []byte) {
		var def pb.Definition
		if def.Unmarshal(dt) != nil {
			return
		}
		g, err := Decode(&def)
		if err != nil {
			return
		}
		if _, err := g.Text(); err != nil && !strings.Contains(err.Error(), "UTF-8") {
			t.Error(err)
		}
		seen := map[*Vertex]bool{}
		for _, v := range g.Vertices {
			for _, in := range v.Inputs {
				if !seen[in.Vertex] || in.Index < 0 || in.Index >= in.Vertex.Outputs() {
					t.Errorf("input %+v of %q", in, v.Name)
				}
			}
			seen[v] = true
		}
		if g.Target.Vertex != nil && g.Target.Vertex != g.Vertices[len(g.Vertices)-1] {
			t.Error("the target is not last")
		}
	})
}
