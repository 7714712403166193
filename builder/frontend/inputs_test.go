package frontend

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/solver/pb"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/progress"
)

// tree writes files below a new directory. A value "-> x" makes a symbolic link and "|" a
// FIFO.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		target, isLink := strings.CutPrefix(content, "-> ")
		switch {
		case isLink:
			err = errors.Join(err, os.Symlink(target, path))
		case content == "|":
			err = errors.Join(err, unix.Mkfifo(path, 0o644))
		default:
			err = errors.Join(err, os.WriteFile(path, []byte(content), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpenDirectory(t *testing.T) {
	huge := strings.Repeat("#", MaxFile+1)
	outside := tree(t, map[string]string{"passwd": "FROM stolen\n"})
	for _, tc := range []struct {
		name     string
		files    map[string]string
		file     string
		filename string
		wantErr  string
	}{
		{name: "plain", files: map[string]string{"Dockerfile": "FROM scratch"}, filename: "Dockerfile"},
		{name: "order", files: map[string]string{"Dockerfile": "FROM scratch", "Containerfile": "bad"}, filename: "Dockerfile"},
		{name: "link inside", files: map[string]string{"Dockerfile": "-> sub/real", "sub/real": "FROM scratch"}, filename: "Dockerfile"},
		{name: "absolute link is inside", files: map[string]string{"Dockerfile": "-> /sub/real", "sub/real": "FROM scratch"}, filename: "Dockerfile"},
		{name: "link outside", files: map[string]string{"Dockerfile": "-> " + outside + "/passwd"}, wantErr: "leads nowhere inside the context"},
		{name: "relative link outside", files: map[string]string{"Dockerfile": "-> ../../../../../../../../.." + outside + "/passwd"}, wantErr: "leads nowhere inside the context"},
		{name: "named link outside", files: map[string]string{"D": "-> " + outside + "/passwd"}, file: "$DIR/D", filename: "D"},
		{name: "directory", files: map[string]string{"Dockerfile/x": ""}, wantErr: "is a directory"},
		{name: "fifo", files: map[string]string{"Dockerfile": "|"}, wantErr: "is a pipe"},
		{name: "named fifo", files: map[string]string{"D": "|"}, file: "$DIR/D", wantErr: "use -f -"},
		{name: "huge", files: map[string]string{"Dockerfile": huge}, wantErr: "larger than"},
		{name: "named huge", files: map[string]string{"D": huge}, file: "$DIR/D", wantErr: "larger than"},
		{name: "relative to the context", files: map[string]string{"sub/D": "FROM scratch"}, file: "sub/D", filename: "D"},
		{name: "not above the context", files: map[string]string{"x": ""}, file: "../../../../../../../../nosuch/passwd", wantErr: "no such file"},
		{name: "named lower case", files: map[string]string{"sub/dockerfile": "FROM scratch"}, file: "$DIR/sub/Dockerfile", filename: "dockerfile"},
		{name: "ignore link outside", files: map[string]string{"Dockerfile": "FROM scratch", ".dockerignore": "-> " + outside + "/passwd"}, wantErr: "not followed"},
		{name: "ignore link inside", files: map[string]string{"Dockerfile": "FROM scratch", ".dockerignore": "-> i", "i": "x"}, filename: "Dockerfile"},
		{name: "ignore fifo", files: map[string]string{"Dockerfile": "FROM scratch", ".dockerignore": "|"}, wantErr: "is a pipe"},
		{name: "own ignore fifo", files: map[string]string{"Dockerfile": "FROM scratch", "Dockerfile.dockerignore": "|"}, wantErr: "is a pipe"},
		{name: "containerignore link outside", files: map[string]string{"Containerfile": "FROM scratch", ".containerignore": "-> " + outside + "/passwd"}, wantErr: "not followed"},
		{name: "containerignore of a Dockerfile", files: map[string]string{"Dockerfile": "FROM scratch", ".containerignore": "|"}, filename: "Dockerfile"},
		{name: "own ignore wins", files: map[string]string{"Dockerfile": "FROM scratch", "Dockerfile.dockerignore": "x", ".dockerignore": "|"}, filename: "Dockerfile"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := tree(t, tc.files)
			in, err := Open(t.Context(), Options{Context: dir, Dockerfile: strings.ReplaceAll(tc.file, "$DIR", dir)})
			if tc.wantErr != "" {
				var input *InputError
				if !errors.As(err, &input) || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("error %v, want an InputError with %q", err, tc.wantErr)
				}
				if strings.Contains(err.Error(), "stolen") {
					t.Errorf("error tells what is outside: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if in.Filename != tc.filename || in.Locals["context"] != dir {
				t.Errorf("filename %q, locals %v", in.Filename, in.Locals)
			}
			if err := in.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestContainerfile checks the names of podman. A Containerfile is used without -f only
// if docker would find no Dockerfile. Its ignore file is used with -f too.
func TestContainerfile(t *testing.T) {
	elsewhere := tree(t, map[string]string{
		"Containerfile": "FROM scratch", ".containerignore": "e",
		"own.Containerfile": "FROM scratch", "own.Containerfile.containerignore": "p",
	})
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
		file  string
	}{
		{"none", map[string]string{"Containerfile": "FROM scratch"}, "", ""},
		{"podman's", map[string]string{"Containerfile": "FROM scratch", ".containerignore": "c", ".dockerignore": "d"}, "c", ""},
		{"docker's", map[string]string{"Containerfile": "FROM scratch", ".dockerignore": "d"}, "", ""},
		{"its own", map[string]string{"Containerfile": "FROM scratch", "Containerfile.dockerignore": "o", ".containerignore": "c"}, "o", ""},
		{"its own by podman's name", map[string]string{"Containerfile": "FROM scratch", "Containerfile.containerignore": "p", ".containerignore": "c"}, "p", ""},
		{"its own by both names", map[string]string{"Containerfile": "FROM scratch", "Containerfile.containerignore": "p", "Containerfile.dockerignore": "o"}, "o", ""},
		{"of a Dockerfile", map[string]string{"Dockerfile": "FROM scratch", ".containerignore": "c"}, "", ""},
		{"of a Dockerfile that is named", map[string]string{"Dockerfile": "FROM scratch", ".containerignore": "c"}, "", "Dockerfile"},
		{"named", map[string]string{"Containerfile": "FROM scratch", ".containerignore": "c"}, "c", "Containerfile"},
		{"named beside a Dockerfile", map[string]string{"Dockerfile": "FROM scratch", "Containerfile": "FROM scratch", ".containerignore": "c"}, "c", "./Containerfile"},
		{"named below", map[string]string{"sub/web.containerfile": "FROM scratch", ".containerignore": "c"}, "c", "sub/web.containerfile"},
		{"named, its own", map[string]string{"Containerfile.dev": "FROM scratch", "Containerfile.dev.dockerignore": "o", ".containerignore": "c"}, "o", "Containerfile.dev"},
		{"elsewhere", map[string]string{".containerignore": "c"}, "c", elsewhere + "/Containerfile"},
		{"elsewhere, its own", map[string]string{".containerignore": "c"}, "p", elsewhere + "/own.Containerfile"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in, err := Open(t.Context(), Options{Context: tree(t, tc.files), Dockerfile: tc.file})
			if err != nil {
				t.Fatal(err)
			}
			if got := string(in.files[in.Filename+".dockerignore"]); got != tc.want {
				t.Errorf("the ignore file of %s has %q, want %q", in.Filename, got, tc.want)
			}
		})
	}
}

func TestOpenContextErrors(t *testing.T) {
	dir := tree(t, map[string]string{"file": "x", "fifo": "|"})
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"none", Options{}, "no build context given"},
		{"missing", Options{Context: dir + "/nope"}, "no such directory"},
		{"file", Options{Context: dir + "/file"}, "is a file, not a directory"},
		{"fifo", Options{Context: dir + "/fifo"}, "is not a directory"},
		{"no stdin", Options{Context: "-"}, "there is none"},
		{"empty stdin", Options{Context: "-", Stdin: strings.NewReader("")}, "empty"},
		{"both stdin", Options{Context: "-", Dockerfile: "-", Stdin: strings.NewReader("x")}, "cannot both"},
		{"stdin against -f", Options{Context: "-", Dockerfile: "D", Stdin: strings.NewReader("FROM x")}, "contradicts"},
		{"no stdin for -f", Options{Context: dir, Dockerfile: "-"}, "there is none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Open(t.Context(), tc.o)
			var input *InputError
			if !errors.As(err, &input) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want an InputError with %q", err, tc.want)
			}
		})
	}
}

func TestDockerfileFromStdin(t *testing.T) {
	dir := tree(t, map[string]string{".dockerignore": "secret", "Dockerfile": "not this"})
	res, err := build(t, Options{Context: dir, Dockerfile: "-", Stdin: strings.NewReader("FROM scratch\nCOPY . /\n")}, fakes())
	if err != nil {
		t.Fatal(err)
	}
	source := res.Platforms[0].Graph.Vertices[0].Source
	if got := source.Attrs["local.excludepatterns"]; got != `["secret"]` {
		t.Errorf("the context's ignore file does not apply: %q", got)
	}
}

func TestDockerfileIsContext(t *testing.T) {
	tmp := t.TempDir()
	in, err := Open(t.Context(), Options{Context: "-", Stdin: strings.NewReader("FROM busybox\nRUN x\n"), TempDir: tmp})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), in, fakes()); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(in.Locals["context"])
	if err != nil || len(entries) != 0 {
		t.Errorf("context: %v, %v", entries, err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func tarball(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, content := range files {
		hdr := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(1234567890, 0)}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// compress passes data through a compressor. There is no writer for bzip2, so that case
// returns only a header.
func compress(t *testing.T, kind string, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	var w io.WriteCloser
	var err error
	switch kind {
	case "gzip":
		w = gzip.NewWriter(&buf)
	case "zstd":
		w, err = zstd.NewWriter(&buf)
	case "xz":
		w, err = xz.NewWriter(&buf)
	case "bzip2":
		return append([]byte("BZh91AY&SY"), data...)
	default:
		return data
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// fakeEvaluator serves one directory and records the graphs.
type fakeEvaluator struct {
	dir    string
	mu     sync.Mutex
	graphs []*llb.Graph
	closed int
}

func (e *fakeEvaluator) Evaluate(_ context.Context, g *llb.Graph) (Root, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.graphs = append(e.graphs, g)
	return OpenDir(e.dir, func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.closed++
		return nil
	})
}

func TestArchiveFromStdin(t *testing.T) {
	for _, kind := range []string{"plain", "gzip", "xz", "zstd", "bzip2"} {
		t.Run(kind, func(t *testing.T) {
			files := map[string]string{"sub/Dockerfile": "FROM scratch\nCOPY a /a\n", "sub/a": "1", ".dockerignore": "*"}
			data := compress(t, kind, tarball(t, files))
			in, err := Open(t.Context(), Options{Context: "-", Dockerfile: "sub/Dockerfile", Stdin: bytes.NewReader(data), TempDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = in.Close() }()
			spool, err := os.ReadFile(in.Archive)
			if err != nil || !bytes.Equal(spool, data) {
				t.Fatalf("spooled %d bytes of %d, %v", len(spool), len(data), err)
			}
			ev := &fakeEvaluator{dir: tree(t, files)}
			res, err := Build(t.Context(), in, Services{Evaluator: ev})
			if err != nil {
				t.Fatal(err)
			}
			if len(ev.graphs) != 1 || ev.closed != 1 {
				t.Fatalf("%d evaluations, %d closed", len(ev.graphs), ev.closed)
			}
			unpack := ev.graphs[0].Target.Vertex
			if unpack.File == nil || !unpack.File.Actions[0].GetCopy().AttemptUnpackDockerCompatibility {
				t.Errorf("evaluated %+v", unpack)
			}
			first := res.Platforms[0].Graph.Vertices[0]
			if first.Source.GetIdentifier() != StdinURL {
				t.Errorf("the graph starts with %v", first.Source)
			}
		})
	}
}

func TestArchiveWithoutDockerfile(t *testing.T) {
	data := tarball(t, map[string]string{"a": "1"})
	o := Options{Context: "-", Stdin: bytes.NewReader(data), TempDir: t.TempDir()}
	_, err := build(t, o, Services{Evaluator: &fakeEvaluator{dir: tree(t, map[string]string{"a": "1"})}})
	var input *InputError
	if !errors.As(err, &input) || !strings.Contains(err.Error(), "failed to read dockerfile: open Dockerfile: no such file or directory") {
		t.Errorf("error %v", err)
	}
}

func TestArchiveWithDockerfileFromHere(t *testing.T) {
	dir := tree(t, map[string]string{"D": "FROM scratch\nCOPY a /a\n"})
	o := Options{Context: "-", Dockerfile: dir + "/D", Stdin: bytes.NewReader(tarball(t, map[string]string{"a": "1"})), TempDir: t.TempDir()}
	res, err := build(t, o, Services{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(res.Platforms[0].Graph.Vertices); n != 3 {
		t.Errorf("%d vertices, want download, unpack and copy", n)
	}
}

// TestEpochOfArchive takes SOURCE_DATE_EPOCH from the newest member.
func TestEpochOfArchive(t *testing.T) {
	files := map[string]string{"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "1"}
	o := Options{
		Context: "-", Stdin: bytes.NewReader(tarball(t, files)), TempDir: t.TempDir(),
		BuildArgs: map[string]string{epochArg: "context"},
	}
	res, err := build(t, o, Services{Evaluator: &fakeEvaluator{dir: tree(t, files)}})
	if err != nil {
		t.Fatal(err)
	}
	if res.Epoch == nil || res.Epoch.Unix() != 1234567890 {
		t.Errorf("epoch %v", res.Epoch)
	}
}

type fakeHTTP struct{ modified time.Time }

func (f fakeHTTP) LastModified(context.Context, *pb.SourceOp) (*time.Time, error) {
	return &f.modified, nil
}

func TestURLContext(t *testing.T) {
	ev := &fakeEvaluator{dir: tree(t, map[string]string{"context": "FROM scratch\nCOPY context /self\n"})}
	o := Options{Context: "https://example.com/Dockerfile", BuildArgs: map[string]string{epochArg: "context"}}
	res, err := build(t, o, Services{Evaluator: ev, HTTP: fakeHTTP{time.Unix(99, 0)}})
	if err != nil {
		t.Fatal(err)
	}
	if len(ev.graphs) != 1 {
		t.Errorf("downloaded %d times", len(ev.graphs))
	}
	if res.Epoch == nil || res.Epoch.Unix() != 99 {
		t.Errorf("epoch %v", res.Epoch)
	}
}

func TestEpochOptionLosesToArgument(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	env := time.Unix(5, 0)
	res, err := build(t, Options{Context: dir, Epoch: &env, BuildArgs: map[string]string{epochArg: "7"}}, fakes())
	if err != nil {
		t.Fatal(err)
	}
	if res.Epoch == nil || res.Epoch.Unix() != 7 {
		t.Errorf("epoch %v", res.Epoch)
	}
}

func TestNamedContextIgnoreFile(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	extra := tree(t, map[string]string{".dockerignore": "-> /etc/passwd"})
	_, err := Open(t.Context(), Options{Context: dir, Contexts: map[string]string{"x": extra}})
	if err == nil || !strings.Contains(err.Error(), "not followed") {
		t.Errorf("error %v", err)
	}
}

func TestCalls(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "# the tools\nFROM busybox AS tools\nARG A=1\nMAINTAINER me\n"})
	for _, tc := range []struct {
		call, want string
		status     int
	}{
		{CallCheck, "MaintainerDeprecated", 1},
		{CallOutline, "A", 0},
		{CallTargets, "tools", 0},
	} {
		t.Run(tc.call, func(t *testing.T) {
			res, err := build(t, Options{Context: dir, Call: tc.call}, fakes())
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			if err := res.Call.Print(&b, false); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(b.String(), tc.want) || res.Call.Status != tc.status {
				t.Errorf("status %d, text:\n%s", res.Call.Status, b.String())
			}
			if len(res.Platforms) != 0 {
				t.Errorf("a report with platforms %v", res.Platforms)
			}
		})
	}
}

// TestCheckFailure checks a Dockerfile with an error. The findings are reported, and the
// error is not one of them.
func TestCheckFailure(t *testing.T) {
	dir := tree(t, map[string]string{"sub/Dockerfile": "FROM busybox AS A\nRUN --mont=x \x1b[2J\n"})
	res, err := build(t, Options{Context: dir, Dockerfile: dir + "/sub/Dockerfile", Call: CallCheck}, fakes())
	if err != nil {
		t.Fatal(err)
	}
	const excerpt = `
   1 |     FROM busybox AS A
   2 | >>> RUN --mont=x �[2J
   3 |     
--------------------
`
	want := `Check complete, 1 warning has been found!

WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
Stage name 'A' should be lowercase
$DIR/sub/Dockerfile:1
--------------------
   1 | >>> FROM busybox AS A
   2 |     RUN --mont=x �[2J
   3 |     
--------------------

`
	var b strings.Builder
	if err := res.Call.Print(&b, false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, strings.ReplaceAll(b.String(), dir, "$DIR")); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	want = "dockerfile parse error on line 2: unknown flag: --mont (did you mean mount?)\n$DIR/sub/Dockerfile:2\n--------------------" + excerpt
	if diff := cmp.Diff(want, strings.ReplaceAll(res.Call.Failure(), dir, "$DIR")); diff != "" {
		t.Errorf("failure (-want +got):\n%s", diff)
	}
	if res.Call.Status != 1 {
		t.Errorf("status %d", res.Call.Status)
	}
}

func TestCallUnknown(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM busybox\n"})
	_, err := build(t, Options{Context: dir, Call: "dance"}, fakes())
	if err == nil || !strings.Contains(err.Error(), "unsupported request frontend.dance") {
		t.Errorf("error %v", err)
	}
}

func TestCheckWithoutFindings(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM busybox\n"})
	res, err := build(t, Options{Context: dir, Call: CallCheck}, fakes())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := res.Call.Print(&b, false); err != nil || b.String() != "Check complete, no warnings found.\n" || res.Call.Status != 0 {
		t.Errorf("%q, status %d, %v", b.String(), res.Call.Status, err)
	}
}

// sink records the names of completed vertices.
type sink struct {
	progress.Sink
	mu    sync.Mutex
	names map[string]int
}

func newSink() *sink { return &sink{Sink: progress.Discard, names: map[string]int{}} }

func (s *sink) Vertex(v progress.Vertex) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.Completed != nil {
		s.names[v.Name]++
	}
}

func TestProgress(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY . /\n"})
	s := newSink()
	svc := fakes()
	svc.Progress = s
	if _, err := build(t, Options{Context: dir}, svc); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"[internal] load build definition from Dockerfile",
		"[internal] load .dockerignore",
		"[internal] load metadata for docker.io/library/busybox:latest",
	} {
		if s.names[name] != 1 {
			t.Errorf("%q was completed %d times; seen: %v", name, s.names[name], s.names)
		}
	}
}

func TestRoot(t *testing.T) {
	dir := tree(t, map[string]string{"a/b": "0123456789", "link": "-> /a/b", "out": "-> ../../../etc/passwd", "fifo": "|"})
	root, err := OpenDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	for _, tc := range []struct {
		name, path     string
		offset, length int64
		want           string
	}{
		{"all", "a/b", 0, 0, "0123456789"},
		{"range", "/a/b", 2, 3, "234"},
		{"beyond", "a/b", 8, 100, "89"},
		{"after", "a/b", 50, 1, ""},
		{"link", "link", 0, 1, "0"},
		{"dots", "../../a/b", 0, 1, "0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := root.ReadFile(tc.path, tc.offset, tc.length)
			if err != nil || string(got) != tc.want {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
		})
	}
	if _, err := root.ReadFile("out", 0, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("link out of the root: %v", err)
	}
	if _, err := root.ReadFile("fifo", 0, 0); !errors.Is(err, errPipe) {
		t.Errorf("fifo: %v", err)
	}
	infos, err := root.ReadDir("a")
	if err != nil || len(infos) != 1 || infos[0].Name() != "b" {
		t.Errorf("directory: %v, %v", infos, err)
	}
}

// FuzzBuild passes arbitrary Dockerfiles to the front end. Decode must accept each
// resulting graph, and the code must not panic.
func FuzzBuild(f *testing.F) {
	for _, s := range []string{
		"FROM busybox\nRUN --mount=type=cache,target=/c,id=a,from=busybox x\n",
		"# syntax=docker/dockerfile:1\n# escape=`\nARG A=1\nFROM ${A:-busybox} AS b\nCOPY --link <<X /y\n$A\nX\n",
		"FROM trigger\nADD --chown=a:b --chmod=u+x https://example.com/x /\nONBUILD RUN y\n",
		"FROM scratch\nHEALTHCHECK --interval=1s CMD [\"a\"]\nEXPOSE 1-4/udp\nSHELL [\"a\"]\n",
		"# check=error=true\nFROM --platform=$BUILDPLATFORM busybox\nRUN --security=insecure --network=none --device=a/b=c x\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, dockerfile []byte) {
		skipUpstreamRace(t, dockerfile)
		if bytes.Contains(dockerfile, []byte("@")) || bytes.Contains(dockerfile, []byte("ssh:")) {
			// Git sources over ssh make the front end ask the host for its keys. A test
			// must not use the network.
			t.Skip()
		}
		in := &Inputs{
			Locals: map[string]string{"context": t.TempDir()}, Filename: "Dockerfile",
			files: memRoot{"Dockerfile": dockerfile}, platform: amd64,
			opts: map[string]string{"filename": "Dockerfile", "platform": "linux/amd64"},
		}
		res, err := Build(t.Context(), in, fakes())
		if errors.Is(err, llb.ErrInvalid) {
			t.Errorf("the graph does not decode: %v", err)
		}
		if perr := PrintError(io.Discard, err); perr != nil {
			t.Error(perr)
		}
		if err == nil {
			if _, err := res.Platforms[0].Graph.Text(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestSilentServer uses a Dockerfile with a git repository on an ssh server that never
// sends a byte.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	dir := t.TempDir()
	text := "FROM scratch\nADD ssh://git@" + l.Addr().String() + "/r.git /\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := Open(t.Context(), Options{Context: dir})
	if err != nil {
		t.Fatal(err)
	}
	in.patience = 200 * time.Millisecond
	_, err = Build(t.Context(), in, fakes())
	if err == nil || !strings.Contains(err.Error(), "does not send its host key") || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("error %v", err)
	}
	in.patience = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Build(ctx, in, fakes()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}
