package solve

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/explain"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/source/local"
)

// Cache keys must not change between versions without need, because all caches would be
// lost.
func TestKeysStay(t *testing.T) {
	want := map[string]cache.Key{
		"exec":  "sha256:320c5c76aa7238e25faf99dc113d443a6323545adce8996378692682ef932531",
		"file":  "sha256:287cc93d121830b97a8bdb697fd5a927428226a3015f3d7dea14826b1c20bf3c",
		"tmpfs": "sha256:611be2b6ae8f5190b050ebd032386c741d37a9603515bf8f6b57ba31f4a92f68",
		"merge": "sha256:67bb4a8fcc548f9520c93142427888a258a6c72c503a1d8dbadad875f56db5a1",
	}
	for name, v := range sampleOperations() {
		if got := keyOf(t, v); got != want[name] {
			t.Errorf("%s has the key %s, want %s", name, got, want[name])
		}
	}
}

func keyOf(t *testing.T, v *llb.Vertex) cache.Key {
	t.Helper()
	k, err := key(t.Context(), v, make([]*local.Tree, len(v.Inputs)), make([]string, len(v.Inputs)), func(i int) (string, error) {
		return fmt.Sprint("id", i), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func factsOf(t *testing.T, v *llb.Vertex) *explain.Facts {
	t.Helper()
	c := collector{ctx: t.Context(), v: v, trees: make([]*local.Tree, len(v.Inputs)), salts: make([]string, len(v.Inputs)), out: &explain.Facts{}}
	for i := range v.Inputs {
		c.inputs = append(c.inputs, Snapshot{Chain: digest.FromString(fmt.Sprint("chain", i))})
	}
	if err := describe(v, c); err != nil {
		t.Fatal(err)
	}
	return c.out
}

// uncounted are the fields of an operation that are not part of its key, each with the
// reason.
var uncounted = map[string]string{
	"exec.meta.proxy_env":                 "only the network needs it",
	"exec.meta.extraHosts.IP":             "an address is no content",
	"exec.meta.ulimit":                    "a limit",
	"exec.meta.cgroupParent":              "where limits are",
	"exec.meta.removeMountStubsRecursive": "always so",
	"exec.meta.validExitCodes":            "not in Dockerfiles",
	"exec.mounts.cacheOpt.ID":             "the content of a cache is not to count",
	"exec.mounts.cacheOpt.sharing":        "the content of a cache is not to count",
	"exec.mounts.TmpfsOpt.size":           "a limit",
	"exec.mounts.resultID":                "not in Dockerfiles",
	"exec.mounts.contentCache":            "not in Dockerfiles",
}

// Every field of an operation changes both its key and its facts, or neither. In the
// second case it must be listed in uncounted. A new field of BuildKit fails this test
// until it is handled.
func TestKeyAndFactsAgree(t *testing.T) {
	unused := maps.Clone(uncounted)
	for kind, v := range sampleOperations() {
		key, facts := keyOf(t, v), factsOf(t, v)
		var op proto.Message
		switch kindOf(v) {
		case "exec":
			op = v.Exec
		case "file":
			op = v.File
		case "merge":
			op = v.Merge
		}
		alter(op.ProtoReflect(), kindOf(v), func(path string) {
			otherKey := keyOf(t, v) != key
			changes := explain.Compare(facts, factsOf(t, v))
			switch {
			case otherKey != (len(changes) > 0):
				t.Errorf("%s: the key changes: %t, the facts: %v", path, otherKey, changes)
			case !otherKey && uncounted[path] == "":
				t.Errorf("%s does not count", path)
			case otherKey && uncounted[path] != "":
				t.Errorf("%s counts", path)
			}
			delete(unused, path)
		})
		// Another platform or another user.
		v.Platform = &ocispec.Platform{OS: "linux", Architecture: "riscv64"}
		if kind != "merge" && (keyOf(t, v) == key || len(explain.Compare(facts, factsOf(t, v))) == 0) {
			t.Errorf("the platform of %s does not count", kind)
		}
	}
	for path := range unused {
		t.Errorf("%s was not tried", path)
	}
}

// alter calls try once for each field of m and of the messages in it. During the call,
// the field has another value.
func alter(m protoreflect.Message, path string, try func(path string)) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		at := path + "." + string(f.Name())
		old := m.Get(f)
		switch {
		case idle(m, f):
		case f.IsMap():
			panic(at + ": maps are not tried")
		case f.IsList() && f.Message() != nil:
			if !m.Has(f) {
				other := m.NewField(f)
				other.List().Append(other.List().NewElement())
				m.Set(f, other)
				try(at)
				m.Clear(f)
				continue
			}
			for i := range old.List().Len() {
				alter(old.List().Get(i).Message(), at, try)
			}
		case f.IsList():
			n := old.List().Len()
			m.Mutable(f).List().Append(another(f, m.NewField(f).List().NewElement()))
			try(at)
			m.Mutable(f).List().Truncate(n)
		case f.Message() != nil:
			if m.Has(f) {
				alter(old.Message(), at, try)
			} else if f.ContainingOneof() == nil {
				m.Set(f, m.NewField(f))
				try(at)
				m.Clear(f)
			}
		default:
			had := m.Has(f)
			m.Set(f, another(f, old))
			try(at)
			if had {
				m.Set(f, old)
			} else {
				m.Clear(f)
			}
		}
	}
}

// idle reports whether the field f has no meaning in m: an option for another type of
// mount, or an input of a mount type without inputs.
func idle(m protoreflect.Message, f protoreflect.FieldDescriptor) bool {
	mount, ok := m.Interface().(*pb.Mount)
	if !ok {
		return false
	}
	switch f.Name() {
	case "selector":
		return mount.GetInput() < 0
	case "input":
		return mount.GetMountType() == pb.MountType_SECRET || mount.GetMountType() == pb.MountType_SSH
	}
	return f.Message() != nil && !m.Has(f)
}

func another(f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!v.Bool())
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum((v.Enum() + 1) % 2)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(v.String() + "x")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(append(slices.Clone(v.Bytes()), 'x'))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(anotherInput(v)))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(anotherInput(v))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(v.Uint() + 1))
	default:
		panic(fmt.Sprintf("%s: %s is not tried", f.FullName(), f.Kind()))
	}
}

func sampleOperations() map[string]*llb.Vertex {
	base := &llb.Vertex{Name: "base"}
	return map[string]*llb.Vertex{
		"exec": {
			Name: "[a 1/2] RUN x", Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8", OSVersion: "1"},
			Inputs: []llb.Output{{Vertex: base}, {Vertex: base, Index: 1}},
			Exec: &pb.ExecOp{
				Meta: &pb.Meta{
					Args: []string{"sh", "-c", "x"}, Env: []string{"A=1", "B=2", "C"}, Cwd: "/w", User: "u", Hostname: "h",
					ExtraHosts: []*pb.HostIP{{Host: "h", IP: "1.2.3.4"}},
				},
				Network: pb.NetMode_NONE, Security: pb.SecurityMode_INSECURE,
				Secretenv:  []*pb.SecretEnv{{ID: "s", Name: "S", Optional: true}},
				CdiDevices: []*pb.CDIDevice{{Name: "d", Optional: true}},
				Mounts: []*pb.Mount{
					{Dest: "/", Input: 0, Output: 0},
					{Dest: "/b", Input: 1, Output: -1, Selector: "/sel", Readonly: true},
					{Dest: "/c", Input: -1, Output: -1, MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "c"}},
					{Dest: "/s", Input: -1, Output: -1, MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "s", Uid: 1, Gid: 2, Mode: 3, Optional: true}},
					{Dest: "/a", Input: -1, Output: -1, MountType: pb.MountType_SSH, SSHOpt: &pb.SSHOpt{ID: "a", Uid: 4, Gid: 5, Mode: 6, Optional: true}},
				},
			},
		},
		"tmpfs": {
			Inputs: []llb.Output{{Vertex: base}, {Vertex: base}},
			Exec: &pb.ExecOp{
				Meta:   &pb.Meta{Args: []string{"x"}},
				Mounts: []*pb.Mount{{Dest: "/t", Input: -1, Output: -1, MountType: pb.MountType_TMPFS, TmpfsOpt: &pb.TmpfsOpt{Size: 1}}},
			},
		},
		"file": {
			Name: "COPY", Inputs: []llb.Output{{Vertex: base}, {Vertex: base, Index: 2}},
			File: &pb.FileOp{Actions: []*pb.FileAction{{
				Input: 0, SecondaryInput: 1, Output: 0,
				Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{Src: "/a", Dest: "/b", Mode: -1, Timestamp: -1}},
			}}},
		},
		"merge": {
			Name: "merge", Inputs: []llb.Output{{Vertex: base}, {Vertex: base}},
			Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{Input: 0}, {Input: 1}, {Input: -1}}},
		},
	}
}

// anotherInput returns an input number other than v. The number is valid for two inputs.
func anotherInput(v protoreflect.Value) int64 {
	if v.Int() < 1 {
		return 1
	}
	return 0
}
