package exec

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/llb"
)

func graph(ops ...*pb.ExecOp) *llb.Graph {
	g := &llb.Graph{}
	for _, op := range ops {
		g.Vertices = append(g.Vertices, &llb.Vertex{Exec: op, Name: "RUN"})
	}
	return g
}

func executor(t *testing.T, allow ...string) *Executor {
	t.Helper()
	a, err := ParseAllow(allow)
	if err != nil {
		t.Fatal(err)
	}
	return &Executor{Allowed: a, Logger: slog.New(slog.DiscardHandler), Caches: cachemount.New(t.TempDir())}
}

func TestParseAllow(t *testing.T) {
	a, err := ParseAllow([]string{"buildx.local.delete", "network.host", "device=x", "device=y"})
	if err != nil || !a.LocalDelete {
		t.Errorf("%+v, %v", a, err)
	}
	for _, bad := range []string{"network", "", "security.insecure=x", "device=a,b", "fs.read=/"} {
		if _, err := ParseAllow([]string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestCheck(t *testing.T) {
	harmless := &pb.ExecOp{Network: pb.NetMode_NONE}
	host := &pb.ExecOp{Network: pb.NetMode_HOST}
	insecure := &pb.ExecOp{Security: pb.SecurityMode_INSECURE}
	tests := map[string]struct {
		allow []string
		graph *llb.Graph
		want  string // the value of --allow that would grant it
	}{
		"nothing wanted":          {nil, graph(harmless), ""},
		"host":                    {nil, graph(harmless, host), "network.host"},
		"host granted":            {[]string{"network.host"}, graph(host), ""},
		"insecure":                {[]string{"network.host", "device"}, graph(host, insecure), "security.insecure"},
		"insecure granted":        {[]string{"security.insecure"}, graph(insecure), ""},
		"one does not grant both": {[]string{"security.insecure"}, graph(host), "network.host"},
	}
	for name, tt := range tests {
		err := executor(t, tt.allow...).Check(tt.graph)
		denied, ok := errors.AsType[*DeniedError](err)
		if tt.want == "" && err != nil || tt.want != "" && (!ok || denied.Grant != tt.want) {
			t.Errorf("%s: error %v, want one that is granted by %q", name, err, tt.want)
		}
	}
}

func TestCheckDevices(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	if err := os.Mkdir(filepath.Join(dir, "cdi"), 0o700); err != nil {
		t.Fatal(err)
	}
	spec := `{"cdiVersion": "0.6.0", "kind": "shale.test/dev", "devices": [
		{"name": "a", "containerEdits": {"env": ["A=1"]}},
		{"name": "b", "containerEdits": {"env": ["B=1"]}},
		{"name": "free", "annotations": {"org.mobyproject.buildkit.device.autoallow": "true"}, "containerEdits": {"env": ["C=1"]}}]}`
	if err := os.WriteFile(filepath.Join(dir, "cdi", "dev.json"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	const a, b, free = "shale.test/dev=a", "shale.test/dev=b", "shale.test/dev=free"
	tests := map[string]struct {
		allow  []string
		wanted []*pb.CDIDevice
		want   []string
		err    string
	}{
		"optional and missing":    {nil, []*pb.CDIDevice{{Name: "shale.test/none", Optional: true}}, nil, ""},
		"required and missing":    {[]string{"device"}, []*pb.CDIDevice{{Name: "shale.test/none"}}, nil, `required device "shale.test/none" is not registered`},
		"allows itself":           {nil, []*pb.CDIDevice{{Name: free}}, []string{free}, ""},
		"all":                     {[]string{"device"}, []*pb.CDIDevice{{Name: "shale.test/dev=*"}}, []string{a, b, free}, ""},
		"first of the kind":       {[]string{"device=" + a}, []*pb.CDIDevice{{Name: "shale.test/dev"}}, []string{a}, ""},
		"by kind":                 {[]string{"device=shale.test/dev=*"}, []*pb.CDIDevice{{Name: b}, {Name: b}}, []string{b}, ""},
		"alias":                   {[]string{"device=" + b + ",alias=gpu"}, []*pb.CDIDevice{{Name: "gpu"}}, []string{b}, ""},
		"an alias grants no name": {[]string{"device=" + b + ",alias=gpu"}, []*pb.CDIDevice{{Name: b}}, nil, "device " + b + " is requested by the build but not allowed; if you trust the Dockerfile, build with --allow device=" + b},
		"another one is granted":  {[]string{"device=" + a}, []*pb.CDIDevice{{Name: a}, {Name: b}}, nil, "device " + b + " is requested by the build but not allowed; if you trust the Dockerfile, build with --allow device=" + b},
		"two":                     {nil, []*pb.CDIDevice{{Name: a}, {Name: b}, {Name: free}}, nil, "devices " + a + ", " + b + " are requested by the build but not allowed; if you trust the Dockerfile, build with --allow device"},
	}
	for name, tt := range tests {
		g := graph(&pb.ExecOp{CdiDevices: tt.wanted})
		err := executor(t, tt.allow...).Check(g)
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%s: error %v, want %q", name, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, d := range g.Vertices[0].Exec.CdiDevices {
			got = append(got, d.Name)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
