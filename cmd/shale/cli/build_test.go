package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder"
	buildexec "github.com/shale-build/shale/builder/exec"
	"github.com/shale-build/shale/builder/frontend"
	"github.com/shale-build/shale/builder/gc"
	"github.com/shale-build/shale/builder/secrets"
	"github.com/shale-build/shale/builder/sshagent"
	"github.com/shale-build/shale/cmd/shale/cli/argv"
	"github.com/shale-build/shale/storage"
)

func TestParseOutput(t *testing.T) {
	attrs := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	tests := map[string]builder.Export{
		"out":                           {Type: "local", Dest: "out", Attrs: attrs()},
		"-":                             {Type: "tar", Dest: "-", Attrs: attrs()},
		"type=local,dest=out":           {Type: "local", Dest: "out", Attrs: attrs()},
		"type=tar":                      {Type: "tar", Dest: "-", Attrs: attrs()},
		"type=oci,dest=a.tar,tar=false": {Type: "oci", Dest: "a.tar", Attrs: attrs("tar", "false")},
		"type=docker":                   {Type: "docker", Attrs: attrs()},
		`type=oci,"dest=a,b.tar"`:       {Type: "oci", Dest: "a,b.tar", Attrs: attrs()},
		"type=registry,name=x/y:1":      {Type: "registry", Attrs: attrs("name", "x/y:1")},
		"type=image,push=true":          {Type: "image", Attrs: attrs("push", "true")},
	}
	for value, want := range tests {
		got, err := parseOutput(value)
		if err != nil {
			t.Errorf("%s: %v", value, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", value, diff)
		}
	}
	for _, bad := range []string{"", "type=fancy", "type=local", "type=local,dest=-", "dest=x", "type=image,dest=x", "type=tar,x", `type="a`} {
		if got, err := parseOutput(bad); err == nil {
			t.Errorf("%q is accepted as %+v", bad, got)
		}
	}
	if _, err := parseOutputs([]string{"-", "type=oci"}, false, false); err == nil {
		t.Error("two archives on standard output are accepted")
	}
}

func TestOutputsOfFlags(t *testing.T) {
	image := func(kv ...string) builder.Export {
		e := builder.Export{Type: "image", Attrs: map[string]string{}}
		for i := 0; i < len(kv); i += 2 {
			e.Attrs[kv[i]] = kv[i+1]
		}
		return e
	}
	local := builder.Export{Type: "local", Dest: "out", Attrs: map[string]string{}}
	tests := []struct {
		args []string
		want []builder.Export
		err  string
	}{
		{args: []string{}},
		{args: []string{"--load"}},
		{args: []string{"--push"}, want: []builder.Export{image("push", "true")}},
		{args: []string{"--push", "-o", "type=image,store=false"}, want: []builder.Export{image("push", "true", "store", "false")}},
		{args: []string{"--load", "-o", "out"}, want: []builder.Export{local, image()}},
		{args: []string{"--load", "-o", "type=image"}, want: []builder.Export{image()}},
		{args: []string{"-o", "out=a"}, want: []builder.Export{{Type: "local", Dest: "out=a", Attrs: map[string]string{}}}},
		{args: []string{"--annotation", "a=b=c"}, want: []builder.Export{image("annotation.a", "b=c")}},
		{
			args: []string{"-o", "out", "-o", "type=image", "--annotation", "index,manifest[linux/amd64]:a=b"},
			want: []builder.Export{local, image("annotation-index.a", "b", "annotation-manifest[linux/amd64].a", "b")},
		},
		{args: []string{"--annotation", "a"}, err: `invalid annotation "a", expected key=value`},
		{args: []string{"--annotation", "layer:a=b"}, err: `unknown annotation type "layer"`},
		{args: []string{"--annotation", "I:a=b"}, err: `invalid annotation type "I", expected type and optional platform in square brackets`},
		{args: []string{"--iidfile", "id", "-o", "out"}, err: "local and tar exporters are incompatible with image ID file"},
		{args: []string{"--provenance=false", "--sbom=false", "--attest", "type=provenance,disabled=true"}},
		{args: []string{"--provenance", "mode=max"}, err: "--provenance is not available"},
		{args: []string{"--attest", "type=sbom"}, err: "--attest is not available"},
		{args: []string{"--attest", "disabled=true"}, err: "attestation type not specified"},
	}
	for _, test := range tests {
		opts, err := parseBuild(t, nil, append(test.args, ".")...)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: error %v, want %s", test.args, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", test.args, err)
		}
		if diff := cmp.Diff(test.want, opts.Exports); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.args, diff)
		}
	}
}

func FuzzParseOutput(f *testing.F) {
	f.Add("type=oci,dest=a")
	f.Add(`"type=a,b",x=`)
	f.Fuzz(func(t *testing.T, value string) {
		e, err := parseOutput(value)
		if err == nil && (e.Type == "" || e.Attrs == nil) {
			t.Errorf("%q gives %+v", value, e)
		}
	})
}

// parseBuild parses args with the whole command line and returns the options of build.
func parseBuild(t *testing.T, env map[string]string, args ...string) (builder.Options, error) {
	t.Helper()
	app := newApp(Streams{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}})
	var opts builder.Options
	for _, c := range app.Commands {
		if c.Name == "build" {
			c.Action = func(c *cli.Context) error {
				if err := errors.Join(refuseFlags(c), refuseAttestations(c)); err != nil {
					return err
				}
				var err error
				opts, err = buildOptions(c, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
				return err
			}
		}
	}
	app.Setup()
	for _, c := range app.Commands {
		complete(c, app.Name)
	}
	normal, err := argv.Normalize(app, append([]string{"shale", "build"}, args...), "run")
	if err != nil {
		return opts, err
	}
	return opts, app.RunContext(t.Context(), normal)
}

func TestBuildOptions(t *testing.T) {
	epoch := time.Unix(1700000000, 0).UTC()
	env := map[string]string{"FROM_ENV": "yes", "SOURCE_DATE_EPOCH": "1700000000"}
	got, err := parseBuild(t, env, ".", "-t", "a", "--tag=b,c", "-f", "D",
		"--build-arg", "A=1=2", "--build-arg", "FROM_ENV", "--build-arg", "UNSET", "--build-arg", "EMPTY=",
		"--label", "k=v,w", "--label", "bare", "--build-context", "base=docker-image://alpine:3",
		"--no-cache-filter", "x,y", "--platform", "linux/arm64,linux/amd64", "--add-host", "h:1.2.3.4", "--add-host=v6=[::1]",
		"--shm-size", "64m", "--ulimit", "nofile=10:20", "--network", "none", "--pull", "--format", "docker",
		"-o", "type=oci,dest=x", "--target", "final", "--provenance=false",
		"--secret", "id=a,src=f", "--secret=id=b,env=B", "--secret", "", "--ssh", "default", "--ssh", "git=k1,k2",
		"--allow", "network.host", "--allow=device=vendor.com/class=x,alias=y",
		"-m", "1g", "--memory-swap=-1", "-c", "512", "--resource", "cpuset-cpus=0-1", "--resource=memory=2g", "--cgroup-parent", "p")
	if err != nil {
		t.Fatal(err)
	}
	limits := gc.Default()
	want := builder.Options{
		GC: &limits,
		Options: frontend.Options{
			Context: ".", Dockerfile: "D", Target: "final", Pull: true, Network: "none", Epoch: &epoch,
			BuildArgs:     map[string]string{"A": "1=2", "FROM_ENV": "yes", "EMPTY": ""},
			Labels:        map[string]string{"k": "v,w", "bare": ""},
			Contexts:      map[string]string{"base": "docker-image://alpine:3"},
			NoCacheFilter: []string{"x", "y"},
			Platforms:     []ocispec.Platform{{OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "amd64"}},
			AddHosts:      []string{"h:1.2.3.4", "v6=[::1]"},
			Resources: frontend.Resources{
				Memory: 1 << 30, MemorySwap: -1, CPUShares: 512, CpusetCpus: "0-1", CgroupParent: "p",
			},
			ShmSize: 64 << 20, Ulimits: []string{"nofile=10:20"},
		},
		Tags: []string{"a", "b,c"}, Format: "docker", CacheGrace: 20 * time.Second,
		Allow:   []string{"network.host", "device=vendor.com/class=x,alias=y"},
		Secrets: []secrets.Source{{ID: "a", File: "f"}, {ID: "b", Env: "B"}},
		SSH:     []sshagent.Source{{ID: "default"}, {ID: "git", Paths: []string{"k1", "k2"}}},
		Exports: []builder.Export{{Type: "oci", Dest: "x", Attrs: map[string]string{}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
}

func TestBuildOptionErrors(t *testing.T) {
	tests := map[string][]string{
		`invalid --secret "src=x": secret missing ID`:    {"--secret", "src=x", "."},
		`invalid --memory "x": invalid size`:             {"--memory", "x", "."},
		`invalid --cpu-quota "-1": want a number`:        {"--cpu-quota=-1", "."},
		`invalid --resource "x=1": unknown resource "x"`: {"--resource", "x=1", "."},
		`invalid --cache-from "type=gha"`:                {"--cache-from", "type=gha", "."},
		`invalid --cache-to "dest=x"`:                    {"--cache-to", "dest=x", "."},
		"unknown entitlement network":                    {"--allow", "network", "."},
		"--squash is not available":                      {"--squash", "."},
		"--sbom is not available":                        {"--sbom=true", "."},
		"standard input cannot be both":                  {"-f", "-", "-"},
		`invalid --network "bridge"`:                     {"--network", "bridge", "."},
		`invalid --format "v2"`:                          {"--format", "v2", "."},
		`invalid --platform "a/b/c/d/e"`:                 {"--platform", "a/b/c/d/e", "."},
		`invalid --shm-size "big"`:                       {"--shm-size", "big", "."},
		`invalid --ulimit "x"`:                           {"--ulimit", "x", "."},
		`"host" is not an IP address`:                    {"--add-host", "a:host", "."},
		"host-gateway is not available":                  {"--add-host", "a:host-gateway", "."},
		`invalid --build-context "x"`:                    {"--build-context", "x", "."},
		`invalid --output "type=fancy"`:                  {"-o", "type=fancy", "."},
		"unknown flag: --taget (did you mean --target?)": {"--taget", "x", "."},
	}
	for want, args := range tests {
		if _, err := parseBuild(t, nil, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", args, err, want)
		}
	}
	for _, args := range [][]string{{"."}, {"--build-arg", "SOURCE_DATE_EPOCH=7", "."}} {
		opts, err := parseBuild(t, map[string]string{"SOURCE_DATE_EPOCH": "context"}, args...)
		want := map[int]string{1: "context", 3: "7"}[len(args)]
		if err != nil || opts.Epoch != nil || opts.BuildArgs["SOURCE_DATE_EPOCH"] != want {
			t.Errorf("SOURCE_DATE_EPOCH=context with %q: %v, arguments %v, %v", args, opts.Epoch, opts.BuildArgs, err)
		}
	}
}

func TestResultFiles(t *testing.T) {
	dir := t.TempDir()
	r := resultFiles{iidFile: filepath.Join(dir, "iid"), metadataFile: filepath.Join(dir, "meta"), quiet: true}
	if err := os.WriteFile(r.iidFile, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.clear(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.iidFile); !os.IsNotExist(err) {
		t.Errorf("the earlier image ID is still there: %v", err)
	}
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	var out bytes.Buffer
	res := &builder.Result{ImageID: "sha256:" + appID, Metadata: map[string]any{"containerimage.config.digest": "sha256:" + appID}}
	if err := r.write(&out, res); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		r.iidFile:      "sha256:" + appID,
		r.metadataFile: "{\n  \"containerimage.config.digest\": \"sha256:" + appID + "\"\n}",
	} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(data) != want {
			t.Errorf("%s holds %q, want %q", path, data, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
	}
	if out.String() != "sha256:"+appID+"\n" {
		t.Errorf("standard output %q", out.String())
	}
	out.Reset()
	if err := (resultFiles{iidFile: r.iidFile, metadataFile: r.metadataFile, quiet: r.quiet, stdoutTaken: true}).write(&out, res); err != nil || out.Len() != 0 {
		t.Errorf("the image ID is mixed into an archive: %q, %v", out.String(), err)
	}
}

func TestExitCode(t *testing.T) {
	killed, cancel := context.WithCancelCause(t.Context())
	cancel(signalError{syscall.SIGTERM})
	foreign := exec.Command("sh", "-c", "exit 3").Run()
	tests := map[string]struct {
		ctx  context.Context //nolint:containedctx // a test case
		err  error
		want int
	}{
		"success":          {t.Context(), nil, 0},
		"own":              {t.Context(), errors.New("x"), 125},
		"usage":            {t.Context(), &argv.UsageError{}, 125},
		"step":             {t.Context(), fmt.Errorf("solve: %w", statusError(42)), 42},
		"joined step":      {t.Context(), errors.Join(errors.New("x"), toldError{statusError(7)}), 7},
		"helper":           {t.Context(), fmt.Errorf("newuidmap: %w", foreign), 125},
		"library of flags": {t.Context(), cli.Exit("No help topic", 3), 125},
		"failed step":      {t.Context(), fmt.Errorf("solve: %w", &buildexec.ExitError{Code: 5}), 5},
		"full disk":        {t.Context(), &storage.FullError{Err: &buildexec.ExitError{Code: 5}}, 125},
		"out of range":     {t.Context(), statusError(512), 125},
		"signal":           {killed, context.Canceled, 143},
		"signal, no error": {killed, nil, 0},
	}
	for name, tc := range tests {
		if got := exitCode(tc.ctx, tc.err); got != tc.want {
			t.Errorf("%s: exit code %d, want %d", name, got, tc.want)
		}
	}
}

func TestMainWithoutStore(t *testing.T) {
	tests := map[string]struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		"version":         {args: []string{"version", "--format", "{{.Version}}"}, stdout: Version + "\n"},
		"version flag":    {args: []string{"--version"}, stdout: "shale version " + Version},
		"help":            {args: []string{"build", "--help"}, stdout: "shale build - Build an image"},
		"group":           {args: []string{"system"}, stdout: "prune"},
		"unknown command": {args: []string{"bild"}, code: 125, stderr: "shale: unknown command: shale bild (did you mean build?)\nSee 'shale --help'.\n"},
		"unknown flag":    {args: []string{"rmi", "--froce", "x"}, code: 125, stderr: "shale: unknown flag: --froce (did you mean --force?)\nSee 'shale rmi --help'.\n"},
		"missing":         {args: []string{"image", "tag", "x"}, code: 125, stderr: "shale: \"image tag\" takes at least 2 arguments\nSee 'shale image tag --help'.\n"},
		"bad number":      {args: []string{"push", "--compression-level", "x", "y"}, code: 125, stderr: "See 'shale push --help'.\n"},
		"bad level":       {args: []string{"--log-level", "loud", "images"}, code: 125, stderr: "invalid log level \"loud\""},
		"bash":            {args: []string{"completion", "bash"}, stdout: "complete -o bashdefault"},
		"zsh":             {args: []string{"completion", "zsh"}, stdout: "#compdef shale"},
		"fish":            {args: []string{"completion", "fish"}, stdout: "complete -c shale"},
		"no shell":        {args: []string{"completion", "tcsh"}, code: 125, stderr: "no completion for \"tcsh\""},
		"completes":       {args: []string{"buil", argv.CompletionFlag}, stdout: "builder\n"},
		"completes flags": {args: []string{"build", "--no-c", argv.CompletionFlag}, stdout: "--no-cache\n--no-cache-filter\n"},
		"man":             {args: []string{"man"}, stdout: ".TH"},
		"login no tty":    {args: []string{"login"}, code: 125, stderr: "no terminal to ask"},
		"run volume":      {args: []string{"run", "-v", "named:/x", "img"}, code: 125, stderr: "there are no named volumes"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			// The completions of urfave/cli read os.Args of the process.
			own := os.Args
			os.Args = append([]string{"shale"}, tc.args...)
			defer func() { os.Args = own }()
			var out, errs bytes.Buffer
			code := Main(t.Context(), append([]string{"shale"}, tc.args...), Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
			if code != tc.code || !strings.Contains(out.String(), tc.stdout) || !strings.Contains(errs.String(), tc.stderr) {
				t.Errorf("code %d\nstdout: %s\nstderr: %s", code, out.String(), errs.String())
			}
			if tc.stderr == "" && errs.Len() > 0 {
				t.Errorf("stderr: %s", errs.String())
			}
		})
	}
}

func TestReference(t *testing.T) {
	page, err := Reference()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("..", "..", "..", "docs", "cli.md"), page)
}
