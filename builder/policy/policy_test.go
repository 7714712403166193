package policy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/sourcepolicy"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"
)

const rules = `{"rules":[
 {"action":"DENY","selector":{"identifier":"docker-image://evil.test/*"}},
 {"action":"ALLOW","selector":{"identifier":"docker-image://evil.test/good"}},
 {"action":"CONVERT","selector":{"identifier":"docker-image://old.test/(.*)","matchType":"REGEX"},"updates":{"identifier":"docker-image://new.test/$1"}},
 {"action":"CONVERT","selector":{"identifier":"https://x.test/f"},"updates":{"attrs":{"http.checksum":"sha256:00"}}}
]}`

func TestSource(t *testing.T) {
	p, err := Parse([]byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ want, attr string }{
		"docker-image://evil.test/bad":     {},
		"docker-image://evil.test/good":    {want: "docker-image://evil.test/good"},
		"docker-image://old.test/a/b:1":    {want: "docker-image://new.test/a/b:1"},
		"docker-image://old.test/../evil":  {want: "docker-image://new.test/../evil"},
		"https://x.test/f":                 {want: "https://x.test/f", attr: "sha256:00"},
		"local://context":                  {want: "local://context"},
		"docker-image://other.test/a@sha:": {want: "docker-image://other.test/a@sha:"},
	}
	for id, tc := range tests {
		op := &pb.SourceOp{Identifier: id}
		err := p.Source(t.Context(), op)
		if tc.want == "" {
			if !errors.Is(err, sourcepolicy.ErrSourceDenied) {
				t.Errorf("%s: error %v, want a denial", id, err)
			}
			continue
		}
		if err != nil || op.Identifier != tc.want || op.Attrs["http.checksum"] != tc.attr {
			t.Errorf("%s: %s %v, %v", id, op.Identifier, op.Attrs, err)
		}
	}
	var none *Policy
	if err := none.Source(t.Context(), &pb.SourceOp{Identifier: "docker-image://evil.test/bad"}); err != nil {
		t.Errorf("no policy denies: %v", err)
	}
}

func definition(t *testing.T, image string) *pb.Definition {
	t.Helper()
	source := llb.NewSourceMap(nil, "Dockerfile", "Dockerfile", []byte("FROM x\nRUN true\n"))
	at := source.Location([]*pb.Range{{Start: &pb.Position{Line: 1}, End: &pb.Position{Line: 1}}})
	state := llb.Image(image, at, llb.WithCustomName("base")).Run(llb.Args([]string{"true"}), llb.WithCustomName("run")).Root()
	def, err := state.Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return def.ToPB()
}

func TestDefinition(t *testing.T) {
	p, err := Parse([]byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	unchanged := definition(t, "other.test/a")
	if got, err := p.Definition(t.Context(), unchanged); err != nil || got != unchanged {
		t.Errorf("what no rule concerns is changed: %v", err)
	}
	def, err := p.Definition(t.Context(), definition(t, "old.test/a"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	var inputs []digest.Digest
	known := map[digest.Digest]bool{}
	for _, dt := range def.Def {
		var op pb.Op
		if err := op.Unmarshal(dt); err != nil {
			t.Fatal(err)
		}
		dgst := digest.FromBytes(dt)
		known[dgst] = true
		if m := def.Metadata[string(dgst)]; m != nil {
			names[m.Description["llb.customname"]] = true
		}
		for _, in := range op.Inputs {
			inputs = append(inputs, digest.Digest(in.Digest))
		}
		if src := op.GetSource(); src != nil {
			if src.Identifier != "docker-image://new.test/a:latest" {
				t.Errorf("source %s", src.Identifier)
			}
			if len(def.Source.Locations[string(dgst)].GetLocations()) == 0 {
				t.Error("the place in the Dockerfile is lost")
			}
		}
	}
	if !names["base"] || !names["run"] || len(inputs) != 2 {
		t.Errorf("names %v, inputs %v", names, inputs)
	}
	for _, in := range inputs {
		if !known[in] {
			t.Errorf("input %s is not in the definition", in)
		}
	}
}

func TestDefinitionDenied(t *testing.T) {
	p, err := Parse([]byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Definition(t.Context(), definition(t, "evil.test/a"))
	sources := errdefs.Sources(err)
	if !errors.Is(err, sourcepolicy.ErrSourceDenied) || len(sources) != 1 || sources[0].Ranges[0].Start.Line != 1 {
		t.Errorf("error %v at %v", err, sources)
	}
}

func TestRead(t *testing.T) {
	binary, err := proto.Marshal(&spb.Policy{Rules: []*spb.Rule{{Action: spb.PolicyAction_DENY, Selector: &spb.Selector{Identifier: "local://*"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ data, want string }{
		"json":          {rules, ""},
		"protobuf":      {string(binary), ""},
		"capitals":      {`{"Rules":[{"Action":"DENY","Selector":{"Identifier":"x"}}]}`, ""},
		"two spellings": {`{"rules":[{"action":"DENY","selector":{"identifier":"x","match_type":"EXACT"}}]}`, ""},
		"unknown field": {`{"rules":[{"action":"DENY","selektor":{"identifier":"x"}}]}`, "selektor"},
		"empty":         {"", "EOF"},
		"no json":       {"rules:", "invalid character"},
		"null rule":     {`{"rules":[null]}`, "rule 0 is null"},
		"no selector":   {`{"rules":[{"action":"DENY"}]}`, "rule 0 has no selector"},
		"no updates":    {`{"rules":[{"action":"CONVERT","selector":{"identifier":"x"}}]}`, "has no updates"},
		"bad action":    {`{"rules":[{"action":"FORBID","selector":{"identifier":"x"}}]}`, "FORBID"},
		"no constraint": {`{"rules":[{"action":"DENY","selector":{"identifier":"x","constraints":[null]}}]}`, "constraint"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "policy")
			if err := os.WriteFile(path, []byte(tc.data), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Read(path)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(rules), "docker-image://old.test/a")
	f.Add([]byte(`{"rules":[{"action":"CONVERT","selector":{"identifier":"*"},"updates":{"identifier":"${1}x"}}]}`), "a")
	f.Fuzz(func(t *testing.T, data []byte, id string) {
		p, err := Parse(data)
		if err != nil {
			return
		}
		_ = p.Source(t.Context(), &pb.SourceOp{Identifier: id})
	})
}
