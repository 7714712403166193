package kaniko

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/builder/secrets"
	"github.com/shale-build/shale/storage/registry"
)

func environment(pairs ...string) LookupEnv {
	return func(name string) (string, bool) {
		for _, p := range pairs {
			if key, value, _ := strings.Cut(p, "="); key == name {
				return value, true
			}
		}
		return "", false
	}
}

// outcome contains the results of a command line.
type outcome struct {
	builder.Options
	Registry           registry.Options
	Conf               string
	Warnings           []string
	LogLevel, Progress string
}

// run parses the command line and prepares its plan. The context is an empty directory
// unless args select another one.
func run(t *testing.T, args []string, env LookupEnv) outcome {
	t.Helper()
	c, err := Parse(args, env)
	if err != nil {
		t.Fatalf("parse %q: %v", args, err)
	}
	p, err := c.Prepare(t.Context(), strings.NewReader("stdin"))
	if err != nil {
		t.Fatalf("prepare %q: %v", args, err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	o := outcome{Options: p.Builds[len(p.Builds)-1], Registry: p.Registry, Warnings: c.Warnings, LogLevel: c.LogLevel(), Progress: c.Progress()}
	if dir := p.Registry.RegistriesConfDir; dir != "" {
		data, err := os.ReadFile(filepath.Join(dir, "zzzz-kaniko.conf"))
		if err != nil {
			t.Fatal(err)
		}
		o.Conf = string(data)
	}
	return o
}

// TestEveryFlag sets each flag once and checks the result.
func TestEveryFlag(t *testing.T) {
	dir := t.TempDir()
	cert := filepath.Join(dir, "cert")
	if err := os.WriteFile(cert, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	attr := func(name string) func(outcome) any {
		return func(o outcome) any { return o.Exports[0].Attrs[name] }
	}
	warns := func(o outcome) any { return strings.Join(o.Warnings, "\n") }
	quiet := func(o outcome) any { return len(o.Warnings) }
	dest := "--destination=r.test/app:1"
	tests := map[string]struct {
		args []string
		get  func(outcome) any
		want any
	}{
		"verbosity":     {[]string{"-v", "debug"}, func(o outcome) any { return o.LogLevel }, "debug"},
		"log-format":    {[]string{"--log-format=json"}, func(o outcome) any { return o.Progress }, "rawjson"},
		"log-timestamp": {[]string{"--log-timestamp"}, warns, "--log-timestamp has no effect: progress has the time that each step took"},
		"force":         {[]string{"--force"}, quiet, 0},

		"dockerfile":       {[]string{"-f", "sub/Dockerfile"}, func(o outcome) any { return o.Dockerfile }, "sub/Dockerfile"},
		"context":          {[]string{"-c", "dir://" + dir}, func(o outcome) any { return o.Context }, dir},
		"context-sub-path": {[]string{"--context-sub-path=a/b", "--context", dir}, func(o outcome) any { return o.Context }, filepath.Join(dir, "a/b")},
		"destination":      {[]string{"-d", "r.test/a", "--destination=r.test/b:2"}, func(o outcome) any { return o.Tags }, []string{"r.test/a", "r.test/b:2"}},
		"snapshot-mode":    {[]string{"--snapshot-mode", "redo"}, warns, "--snapshot-mode has no effect: " + exact},
		"custom-platform":  {[]string{"--custom-platform=linux/arm64"}, func(o outcome) any { return o.Platforms[0].Architecture }, "arm64"},
		"build-arg": {
			[]string{"--build-arg=A=1", "--build-arg", "B", "--build-arg=UNSET"},
			func(o outcome) any { return o.BuildArgs },
			map[string]string{"A": "1", "B": "from env", "UNSET": ""},
		},
		"insecure":                         {[]string{"--insecure", dest}, func(o outcome) any { return o.Conf }, "\n[[registry]]\nlocation = \"r.test\"\ninsecure = true\n"},
		"skip-tls-verify":                  {[]string{"--skip-tls-verify=true", dest}, func(o outcome) any { return o.Conf }, "\n[[registry]]\nlocation = \"r.test\"\ninsecure = true\n"},
		"insecure-pull":                    {[]string{"--insecure-pull"}, func(o outcome) any { return *o.Registry.PullTLSVerify }, false},
		"skip-tls-verify-pull":             {[]string{"--skip-tls-verify-pull"}, func(o outcome) any { return *o.Registry.PullTLSVerify }, false},
		"push-retry":                       {[]string{"--push-retry=3"}, func(o outcome) any { return o.Registry.PushRetries }, 3},
		"push-ignore-immutable-tag-errors": {[]string{"--push-ignore-immutable-tag-errors"}, func(o outcome) any { return o.Registry.IgnoreImmutableTags }, true},
		"image-fs-extract-retry":           {[]string{"--image-fs-extract-retry", "2"}, func(o outcome) any { return o.Registry.PullRetries }, 2},
		"image-download-retry":             {[]string{"--image-download-retry", "4", "--image-fs-extract-retry=1"}, func(o outcome) any { return o.Registry.PullRetries }, 4},
		"kaniko-dir":                       {[]string{"--kaniko-dir=" + dir}, quiet, 0},
		"tar-path": {
			[]string{"--tar-path=/t.tar"},
			func(o outcome) any { return o.Exports[0] },
			builder.Export{Type: "docker", Dest: "/t.tar", Attrs: map[string]string{"name": unnamed}},
		},
		"single-snapshot":                 {[]string{"--single-snapshot"}, func(o outcome) any { return o.Squash }, true},
		"reproducible":                    {[]string{"--reproducible", "--tar-path=/t.tar"}, func(o outcome) any { return o.Exports[0].Attrs["rewrite-timestamp"] + o.Epoch.Format(time.RFC3339) }, "true1970-01-01T00:00:00Z"},
		"target":                          {[]string{"--target=b"}, func(o outcome) any { return o.Target }, "b"},
		"no-push":                         {nil, func(o outcome) any { return o.Exports[0].Type }, "cacheonly"},
		"no-push-cache":                   {[]string{"--cache", "--cache-repo=r.test/c", "--no-push-cache"}, func(o outcome) any { return len(o.CacheFrom) - len(o.CacheTo) }, 1},
		"cache-repo":                      {[]string{"--cache", "--cache-repo", "oci:/c"}, func(o outcome) any { return o.CacheFrom[0].Attrs["src"] + o.CacheTo[0].Attrs["dest"] }, "/c/c"},
		"cache-dir":                       {[]string{"--cache-dir=/x"}, warns, "--cache-dir has no effect: base images are kept in the store"},
		"digest-file":                     {[]string{"--digest-file=/d"}, func(o outcome) any { return o.Exports[0] }, builder.Export{Type: "image", Attrs: map[string]string{"store": "false"}}},
		"image-name-with-digest-file":     {[]string{"--image-name-with-digest-file=/d", dest}, attr("store"), "false"},
		"image-name-tag-with-digest-file": {[]string{"--image-name-tag-with-digest-file=/d", dest}, attr("store"), "false"},
		"oci-layout-path": {
			[]string{"--oci-layout-path=/l"},
			func(o outcome) any { return o.Exports[0] },
			builder.Export{Type: "oci", Dest: "/l", Attrs: map[string]string{"tar": "false"}},
		},
		"image-format":                   {[]string{"--image-format=docker"}, func(o outcome) any { return o.Format }, "docker"},
		"compression":                    {[]string{"--compression=zstd", "--oci-layout-path=/l"}, attr("compression"), "zstd"},
		"compression-level":              {[]string{"--compression-level=3", "--oci-layout-path=/l"}, attr("compression-level"), "3"},
		"cache":                          {[]string{"--cache=true", dest}, func(o outcome) any { return o.CacheFrom[0].Attrs["ref"] }, "r.test/app/cache"},
		"compressed-caching":             {[]string{"--compressed-caching=false"}, warns, "--compressed-caching has no effect: layers are streamed"},
		"pre-cleanup":                    {[]string{"--pre-cleanup"}, quiet, 0},
		"cleanup":                        {[]string{"--cleanup"}, quiet, 0},
		"preserve-context":               {[]string{"--preserve-context"}, quiet, 0},
		"materialize":                    {[]string{"--materialize"}, warns, "--materialize has no effect: the result is an image; shale run starts it"},
		"cache-ttl":                      {[]string{"--cache", "--cache-ttl=6h", dest}, func(o outcome) any { return o.CacheFrom[0].Attrs["max-age"] + o.CacheTo[0].Attrs["max-age"] }, "6h0m0s6h0m0s"},
		"insecure-registry":              {[]string{"--insecure-registry=i.test:5000"}, func(o outcome) any { return o.Conf }, "\n[[registry]]\nlocation = \"i.test:5000\"\ninsecure = true\n"},
		"skip-tls-verify-registry":       {[]string{"--skip-tls-verify-registry", "i.test"}, func(o outcome) any { return o.Conf }, "\n[[registry]]\nlocation = \"i.test\"\ninsecure = true\n"},
		"registry-certificate":           {[]string{"--registry-certificate=c.test=" + cert}, func(o outcome) any { return link(t, o, "c.test/ca.crt") }, cert},
		"registry-client-cert":           {[]string{"--registry-client-cert=c.test=" + cert + "," + cert}, func(o outcome) any { return link(t, o, "c.test/client.key") }, cert},
		"registry-map":                   {[]string{"--registry-map=a.test=b.test/x;a.test=c.test"}, func(o outcome) any { return o.Conf }, "\n[[registry]]\nprefix = \"a.test\"\nlocation = \"a.test\"\ninsecure = false\n\n[[registry.mirror]]\nlocation = \"b.test/x\"\ninsecure = false\n\n[[registry.mirror]]\nlocation = \"c.test\"\ninsecure = false\n"},
		"registry-mirror":                {[]string{"--registry-mirror", "m.test"}, func(o outcome) any { return o.Conf }, "\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\ninsecure = false\n\n[[registry.mirror]]\nlocation = \"m.test\"\ninsecure = false\n"},
		"skip-default-registry-fallback": {[]string{"--registry-mirror=m.test", "--skip-default-registry-fallback"}, func(o outcome) any { return o.Conf }, "\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"m.test\"\ninsecure = false\n"},
		"ignore-var-run":                 {[]string{"--ignore-var-run"}, warns, "--ignore-var-run has no effect: /var/run is kept like any other directory"},
		"label":                          {[]string{"--label=a=b=c"}, func(o outcome) any { return o.Labels }, map[string]string{"a": "b=c"}},
		"annotation":                     {[]string{"--annotation=a=b", "--oci-layout-path=/l"}, attr("annotation.a"), "b"},
		"skip-unused-stages":             {[]string{"--skip-unused-stages"}, quiet, 0},
		"use-new-run":                    {[]string{"--use-new-run"}, warns, "--use-new-run has no effect: " + exact},
		"git":                            {[]string{"--git=branch=dev", "--context=git://h.test/r"}, func(o outcome) any { return o.Context }, "https://h.test/r.git?ref=dev&submodules=false"},
		"cache-copy-layers":              {[]string{"--cache", "--cache-copy-layers", dest}, quiet, 0},
		"cache-run-layers":               {[]string{"--cache", "--cache-run-layers=false", dest}, func(o outcome) any { return o.NoCache }, true},
		"ignore-path":                    {[]string{"--ignore-path=/a", "--ignore-path", "/b"}, warns, "--ignore-path has no effect: the image has all files that the Dockerfile makes; remove a file in the step that makes it"},
		"force-build-metadata":           {[]string{"--force-build-metadata"}, quiet, 0},
		"skip-push-permission-check":     {[]string{"--skip-push-permission-check"}, quiet, 0},
		"credential-helpers":             {[]string{"--credential-helpers=none"}, warns, "--credential-helpers=none has no effect: known are env, gitlab, google, ecr and acr"},
		"secret":                         {[]string{"--secret=id=a,env=B"}, func(o outcome) any { return o.Secrets }, []secrets.Source{{ID: "a", Env: "B"}}},

		"azure-container-registry-config": {[]string{"--azure-container-registry-config=/x"}, warns, "--azure-container-registry-config has no effect: Azure's credential helper reads its environment"},

		"snapshotMode":      {[]string{"--snapshotMode=redo"}, warns, "--snapshotMode is an old name: use --snapshot-mode"},
		"customPlatform":    {[]string{"--customPlatform=linux/arm64"}, func(o outcome) any { return o.Platforms[0].Architecture + o.Warnings[0] }, "arm64--customPlatform is an old name: use --custom-platform"},
		"tarPath":           {[]string{"--tarPath=/t.tar"}, func(o outcome) any { return o.Exports[0].Dest }, "/t.tar"},
		"whitelist-var-run": {[]string{"--whitelist-var-run=false"}, warns, "--whitelist-var-run is an old name: use --ignore-var-run"},
	}
	elsewhere := []string{"bucket", "dryrun"} // other tests cover them: bucket needs a server, and dryrun is refused
	for _, f := range table() {
		if _, ok := tests[f.name]; !ok && !slices.Contains(elsewhere, f.name) {
			t.Errorf("no test of --%s", f.name)
		}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"--no-push"}, test.args...)
			if !slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "context=") || a == "-c" || a == "--context" }) {
				args = append(args, "--context="+dir)
			}
			o := run(t, args, environment("B=from env", "HOME="+dir))
			if diff := cmp.Diff(test.want, test.get(o), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// link returns the target of a symbolic link below certs.d.
func link(t *testing.T, o outcome, name string) string {
	t.Helper()
	to, err := os.Readlink(filepath.Join(o.Registry.HostCertDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func TestParse(t *testing.T) {
	tests := map[string]struct {
		args []string
		env  []string
		want string // of the error; if "", there must be no error
	}{
		"nothing":                 {nil, nil, "you must provide --destination, or use --no-push"},
		"no push by environment":  {nil, []string{"KANIKO_NO_PUSH=true"}, ""},
		"wrong environment":       {nil, []string{"KANIKO_NO_PUSH=perhaps"}, "invalid KANIKO_NO_PUSH"},
		"cache without a name":    {[]string{"--no-push", "--cache"}, nil, "specify cache repo with --cache-repo"},
		"names without names":     {[]string{"--no-push", "--image-name-with-digest-file=x"}, nil, "you must provide --destination"},
		"boolean behind a blank":  {[]string{"--no-push", "--cache", "true"}, nil, `unexpected argument "true"`},
		"wrong boolean":           {[]string{"--no-push=maybe"}, nil, `invalid argument "maybe"`},
		"value is missing":        {[]string{"--no-push", "--dockerfile"}, nil, "flag needs an argument"},
		"value like a flag":       {[]string{"--no-push", "--dockerfile", "--odd"}, nil, ""},
		"unknown with a value":    {[]string{"--no-push", "--new", "value", "--newer=value", "-x", "y", "-xy"}, nil, ""},
		"short with a value":      {[]string{"-dr.test/a", "-f=x", "-v=debug"}, nil, ""},
		"docker with zstd":        {[]string{"--no-push", "--image-format=docker", "--compression=zstd"}, nil, "knows no zstd"},
		"unknown format":          {[]string{"--no-push", "--image-format=x"}, nil, "it is docker or oci"},
		"unknown compression":     {[]string{"--no-push", "--compression=x"}, nil, "it is gzip or zstd"},
		"unknown verbosity":       {[]string{"--no-push", "--verbosity=x"}, nil, "invalid --verbosity"},
		"dry run":                 {[]string{"--no-push", "--dryrun"}, nil, "--dryrun is not available"},
		"git option without form": {[]string{"--no-push", "--git=main"}, nil, "not of the form KEY=VALUE"},
		"git option of no number": {[]string{"--no-push", "--git=depth=x"}, nil, `depth: "x" is no such value`},
		"help":                    {[]string{"--help"}, nil, "help requested"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(test.args, environment(test.env...))
			switch {
			case test.want == "" && err != nil:
				t.Errorf("unexpected error: %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
	if _, err := Parse([]string{"-h"}, environment()); !errors.Is(err, ErrHelp) {
		t.Errorf("error %v, want ErrHelp", err)
	}
}

func TestUnknownFlagsAreNamed(t *testing.T) {
	c, err := Parse([]string{"--no-push", "--new", "value", "--newer=value", "-x", "--label", "--x"}, environment())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, w := range c.Warnings {
		name, _, _ := strings.Cut(w, " ")
		names = append(names, name)
	}
	if diff := cmp.Diff([]string{"--new", "--newer", "-x"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"--x"}, c.labels); diff != "" {
		t.Errorf("a value that looks like a flag (-want +got):\n%s", diff)
	}
}

func TestTargets(t *testing.T) {
	c, err := Parse([]string{"-d", "r.test/a", "--target=b,c", "--target=d", "--context=" + t.TempDir()}, environment())
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Prepare(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var got []string
	for _, b := range p.Builds {
		got = append(got, b.Target+" "+b.Exports[0].Type)
	}
	if diff := cmp.Diff([]string{"c cacheonly", "d cacheonly", "b registry"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLocalRegistries(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost:5000": true, "127.0.0.1:5000": true, "[::1]:5000": true, "10.1.2.3": true, "192.168.0.1:80": true, "172.16.0.1": true,
		"registry.local:5000": true, "r.localhost": true,
		"127.0.0.2:5000": false, "8.8.8.8": false, "docker.io": false, "local": false, "registry.localdomain": false, "[fd00::1]:5000": false,
	} {
		if got := isLocal(host); got != want {
			t.Errorf("isLocal(%s) is %t", host, got)
		}
	}
}

func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	o := run(t, []string{"--no-push", "--context=" + dir, "--registry-mirror=one.test"},
		environment("KANIKO_REGISTRY_MIRROR=two.test", "KANIKO_REGISTRY_MAP=q.test=p.test"))
	for _, want := range []string{`location = "one.test"`, `location = "two.test"`, `prefix = "q.test"`, `location = "p.test"`} {
		if !strings.Contains(o.Conf, want) {
			t.Errorf("%s is missing in:\n%s", want, o.Conf)
		}
	}
}
