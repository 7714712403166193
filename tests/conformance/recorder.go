package conformance

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/opencontainers/go-digest"
)

// recorder converts the output of a builder to outcomes. All values that may differ
// between two correct builders, machines or runs are normalized in this file and nowhere
// else:
//
//   - An address, directory or random value that the runner supplied is replaced by its
//     @NAME@.
//   - The machine's architecture is replaced by @ARCH@.
//   - Files that match Case.Varies are numbered by content.
//   - The variables with which BuildKit's steps send traces are removed from files.
//   - A builder's own text for a layer without history is omitted.
//   - In messages, the names of a builder's own snapshots are removed, and so is the
//     builder's text before the cause (see message).
type recorder struct {
	c        *Case
	bases    *Bases
	arch     string
	replaced *strings.Replacer
	varies   *patternmatcher.PatternMatcher
	mtimes   *patternmatcher.PatternMatcher
	// ordinals number the distinct contents of files that vary, for each path.
	ordinals map[string]map[digest.Digest]int
}

func newRecorder(c *Case, bases *Bases, arch string, variables map[string]string) (*recorder, error) {
	varies, err := patternmatcher.New(rooted(c.Varies))
	if err != nil {
		return nil, fmt.Errorf("varies: %w", err)
	}
	mtimes, err := patternmatcher.New(rooted(c.Mtimes))
	if err != nil {
		return nil, fmt.Errorf("mtimes: %w", err)
	}
	var pairs []string
	for _, name := range sortedKeys(variables) {
		if name != "ARCH" && name != "FOREIGN" && variables[name] != "" {
			pairs = append(pairs, variables[name], "@"+name+"@")
		}
	}
	return &recorder{
		c: c, bases: bases, arch: arch, replaced: strings.NewReplacer(pairs...),
		varies: varies, mtimes: mtimes, ordinals: map[string]map[digest.Digest]int{},
	}, nil
}

func rooted(patterns []string) []string {
	trimmed := make([]string, len(patterns))
	for i, p := range patterns {
		trimmed[i] = strings.TrimPrefix(p, "/")
	}
	return trimmed
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}

// matches reports whether a pattern of m matches the path itself. A match of a parent
// directory does not count.
func matches(m *patternmatcher.PatternMatcher, name string) bool {
	name = strings.TrimPrefix(name, "/")
	if name == "" {
		return false
	}
	ok, err := m.MatchesUsingParentResult(name, false) //nolint:staticcheck // the path alone is what is wanted
	return err == nil && ok
}

func (r *recorder) timed(name string) bool { return matches(r.mtimes, name) }

// show returns the text for a file's content in an outcome.
func (r *recorder) show(name string, content []byte) string {
	if matches(r.varies, name) {
		sums := r.ordinals[name]
		if sums == nil {
			sums = map[digest.Digest]int{}
			r.ordinals[name] = sums
		}
		sum := digest.FromBytes(content)
		if sums[sum] == 0 {
			sums[sum] = len(sums) + 1
		}
		return fmt.Sprintf("content #%d", sums[sum])
	}
	if len(content) < 64<<10 && isText(content) {
		content = []byte(tracing.ReplaceAllString(r.text(string(content)), ""))
	}
	return showContent(name, content)
}

// text replaces values that the runner supplied by their names.
func (r *recorder) text(s string) string { return r.replaced.Replace(s) }

func (r *recorder) texts(lines []string) []string {
	for i := range lines {
		lines[i] = r.text(lines[i])
	}
	return lines
}

// Said is the output of a builder's process, and its exit status.
type Said struct {
	stdout, stderr []byte
	failed         bool
	status         int
}

// outcome describes a build. outputs are the files and directories that it wrote; the
// list is empty if the build exports nothing. It returns an error if a build failed
// without a message or if an output cannot be read.
func (r *recorder) outcome(b Build, said Said, dir string, outputs []string) (Outcome, error) {
	var out Outcome
	rest := r.progress(&out, said.stderr)
	if b.Stdout {
		out.Stdout = r.lines(string(said.stdout))
	}
	if said.failed {
		out.Error, out.Source = r.message(rest)
		if out.Error == "" && b.Stdout {
			out.Status = said.status
			return out, nil
		}
		if out.Error == "" || strings.Contains(out.Error, "rpc error: code = Unavailable") {
			return out, fmt.Errorf("the build failed and did not say why:\n%s", said.stderr)
		}
		return out, nil
	}
	for _, name := range outputs {
		o, err := r.output(name)
		if err != nil {
			return out, fmt.Errorf("read result: %w", err)
		}
		out.Outputs = append(out.Outputs, o)
	}
	for _, name := range b.Collect {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return out, err
		}
		if out.Files == nil {
			out.Files = map[string][]string{}
		}
		out.Files[name] = r.lines(string(data))
	}
	return out, nil
}

func (r *recorder) lines(s string) []string {
	s = strings.TrimRight(s, "\n")
	if s == "" {
		return nil
	}
	lines := strings.Split(r.text(s), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t\r")
	}
	return lines
}

// status is a line of rawjson progress, as printed by buildctl, buildx and shale.
type status struct {
	Vertexes []struct {
		Digest string `json:"digest"`
		Name   string `json:"name"`
	} `json:"vertexes"`
	Logs []struct {
		Vertex string `json:"vertex"`
		Data   []byte `json:"data"`
	} `json:"logs"`
	Warnings []struct {
		Short []byte `json:"short"`
		URL   string `json:"url"`
	} `json:"warnings"`
}

// progress adds the warnings, steps and logs of stderr to out. It returns the lines that
// are not progress.
func (r *recorder) progress(out *Outcome, stderr []byte) []string {
	names := map[string]string{}
	logs := map[string]*bytes.Buffer{}
	steps := map[string]bool{}
	warnings := map[string]bool{}
	var rest []string
	for line := range strings.Lines(string(stderr)) {
		var s status
		if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &s) != nil {
			rest = append(rest, strings.TrimRight(line, "\n"))
			continue
		}
		for _, v := range s.Vertexes {
			names[v.Digest] = v.Name
			if isStep(v.Name) {
				steps[r.text(cutDigest(v.Name))] = true
			}
		}
		for _, l := range s.Logs {
			if logs[l.Vertex] == nil {
				logs[l.Vertex] = &bytes.Buffer{}
			}
			logs[l.Vertex].Write(l.Data)
		}
		for _, w := range s.Warnings {
			warnings[r.text(string(w.Short))] = true
		}
	}
	out.Warnings = slices.Sorted(maps.Keys(warnings))
	if r.c.Steps {
		out.Steps = slices.Sorted(maps.Keys(steps))
	}
	if r.c.Log {
		out.Log = map[string][]string{}
		for vertex, log := range logs {
			if isStep(names[vertex]) {
				out.Log[r.text(names[vertex])] = r.lines(log.String())
			}
		}
	}
	return rest
}

// isStep reports whether a vertex is an instruction of the Dockerfile. Other vertexes
// depend on the builder and are not compared.
func isStep(name string) bool {
	return strings.HasPrefix(name, "[") && !strings.HasPrefix(name, "[internal]") && !strings.HasPrefix(name, "[auth]")
}

var nameDigest = regexp.MustCompile(`@sha256:[0-9a-f]{64}`)

// cutDigest removes the digests of base images, which differ between machines.
func cutDigest(name string) string { return nameDigest.ReplaceAllString(name, "") }

var tracing = regexp.MustCompile(`(?m)^(OTEL_[A-Z_]+|TRACEPARENT)=.*\n`)

var (
	excerpt = regexp.MustCompile(`^\S.*:\d+$`)
	// The builder's text before the cause: the command's own prefix, and the steps
	// through the builder's graph with the random names of its snapshots.
	wrapping = regexp.MustCompile(`^(?i)error: (failed to build: )?(failed to solve: )?`)
	mounted  = regexp.MustCompile(`/\S+/((cachemounts|containerd-mount)/?buildkit\d+|snapshots/\d+/fs)`)
	snapshot = regexp.MustCompile(`(failed to compute cache key: )?failed to calculate checksum of ref \S+: |failed to load cache key: |fetch https?://\S+: |unpack /\S+: `)
	// buildx looks for a policy file before the front end looks for a Dockerfile.
	policy = regexp.MustCompile(`^failed to stat policy file \S+: `)
)

// message returns the error, which is at the end of the output, and the marked lines of
// the source excerpts before it.
func (r *recorder) message(lines []string) (message string, source []string) {
	for i, line := range lines {
		if text := wrapping.FindString(line); text != "" {
			message = strings.TrimSpace(strings.Join(lines[i:], "\n")[len(text):])
			lines = lines[:i]
			break
		}
	}
	for i, line := range lines {
		if excerpt.MatchString(line) && i+1 < len(lines) && strings.HasPrefix(lines[i+1], "-----") {
			source = append(source, r.text(filepath.Base(line)))
		}
		if _, marked, ok := strings.Cut(line, " | >>> "); ok {
			source = append(source, ">>> "+r.text(strings.TrimRight(marked, " ")))
		}
	}
	message = mounted.ReplaceAllString(snapshot.ReplaceAllString(message, ""), "")
	message = policy.ReplaceAllString(message, "failed to read dockerfile: ")
	return cutDigest(r.text(message)), source
}

// output describes an exporter's output: an OCI layout, an archive of a layout, an
// archive of files, or a directory.
func (r *recorder) output(name string) (Output, error) {
	info, err := os.Stat(name)
	if err != nil {
		return Output{}, err
	}
	if info.IsDir() {
		if _, err := os.Stat(filepath.Join(name, "oci-layout")); err == nil {
			return r.layout(&layout{dir: name})
		}
		return r.directory(name)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return Output{}, err
	}
	l, err := layoutFromTar(bytes.NewReader(data))
	if err == nil && l.files["oci-layout"] != nil {
		return r.layout(l)
	}
	flat := &flattener{tree: tree{}, show: r.show}
	if _, err := flat.apply(bytes.NewReader(data)); err != nil {
		return Output{}, err
	}
	return Output{Tree: flat.tree.describe(r.timed)}, nil
}

func (r *recorder) layout(l *layout) (Output, error) {
	images, err := l.images()
	if err != nil {
		return Output{}, err
	}
	var out Output
	for _, f := range images {
		image, err := r.describeImage(l, f)
		if err != nil {
			return out, fmt.Errorf("image %s: %w", f.desc.Digest, err)
		}
		out.Images = append(out.Images, image)
	}
	if r.c.Manifest {
		out.Index, err = r.describeIndex(l)
	}
	return out, err
}

// directory describes the files in a directory. It omits owners, because all files belong
// to the user that ran the build.
func (r *recorder) directory(dir string) (Output, error) {
	t := tree{}
	inodes := map[uint64]*node{}
	err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		n, err := r.diskNode(file, strings.TrimPrefix(file, dir), info)
		if err != nil {
			return err
		}
		if inode := inodeOf(info); inode != 0 && !info.IsDir() {
			if inodes[inode] != nil {
				n = inodes[inode]
			}
			inodes[inode] = n
		}
		t[strings.TrimPrefix(file, dir)] = n
		return nil
	})
	return Output{Tree: t.describe(r.timed)}, err
}

func (r *recorder) diskNode(file, name string, info fs.FileInfo) (*node, error) {
	header, err := tar.FileInfoHeader(info, "")
	if err != nil {
		return nil, err
	}
	n := &node{kind: header.Typeflag, mode: header.Mode & 0o7777, mtime: info.ModTime()}
	switch n.kind {
	case tar.TypeReg:
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		n.content = r.show(name, data)
	case tar.TypeSymlink:
		if n.link, err = os.Readlink(file); err != nil {
			return nil, err
		}
	}
	return n, nil
}
