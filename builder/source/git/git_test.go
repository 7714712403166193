package git_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/source/git"
	"github.com/shale-build/shale/builder/source/git/gittest"
)

// history creates the repository of BuildKit's own tests of addresses. It adds a
// submodule, an annotated tag, an executable file and a symbolic link.
const history = `
git init -q
echo base >foo
echo one >Dockerfile
git submodule --quiet add $SUB submod
mkdir dir
echo x >dir/file
ln -s dir link
echo '#!/bin/sh' >run; chmod 700 run
git add .
git commit -qm initial
git tag v0.0.1
git branch base
echo feature >foo
mkdir sub
echo subfeature >sub/foo
git add .
git commit -qm feature
git branch feature
git checkout -qB master base
echo v0.0.2 >foo
git commit -qam v0.0.2
git tag v0.0.2
git tag -a -m annotated annotated
echo latest >foo
git commit -qam latest
git tag latest
git update-server-info
`

type site struct {
	t      *testing.T
	root   string
	url    string
	fetch  *counter
	cache  string
	secret map[string]string
}

// counter counts the requests to a git server by type.
type counter struct {
	mu    sync.Mutex
	packs int
	lists int
}

func (c *counter) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c.mu.Lock()
		if req.Method == http.MethodPost {
			body := &bytes.Buffer{}
			_, _ = body.ReadFrom(req.Body)
			if bytes.Contains(body.Bytes(), []byte("command=fetch")) {
				c.packs++
			} else {
				c.lists++
			}
			req.Body = http.NoBody
			req.Body = readCloser{body}
		}
		c.mu.Unlock()
		h.ServeHTTP(w, req)
	})
}

type readCloser struct{ *bytes.Buffer }

func (readCloser) Close() error { return nil }

func script(t *testing.T, dir, lines string) {
	t.Helper()
	if err := gittest.Script(dir, lines); err != nil {
		t.Fatal(err)
	}
}

func newSite(t *testing.T, format string, dumb bool) *site {
	t.Helper()
	s := &site{t: t, root: t.TempDir(), cache: t.TempDir(), fetch: &counter{}}
	h, err := gittest.Smart(s.root)
	if err != nil {
		t.Fatal(err)
	}
	if dumb {
		h = gittest.Dumb(s.root)
	}
	srv := httptest.NewServer(s.fetch.wrap(h))
	t.Cleanup(srv.Close)
	s.url = srv.URL
	export := "export GIT_DEFAULT_HASH=" + format + "\n"
	script(t, filepath.Join(s.root, "sub"), export+"git init -q; echo 123 >file; git add file; git commit -qm initial; git update-server-info")
	script(t, filepath.Join(s.root, "main"), export+"SUB="+s.url+"/sub/.git\n"+history)
	return s
}

func (s *site) repositories() *git.Repositories {
	return git.New(git.Options{
		Dir: s.cache, WorkDir: s.t.TempDir(),
		Secret: func(id string) ([]byte, bool, error) { v, ok := s.secret[id]; return []byte(v), ok, nil },
	})
}

func (s *site) rev(name string) string { return rev(s.t, filepath.Join(s.root, "main"), name) }

func rev(t *testing.T, dir, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "-c", "safe.directory=*", "rev-parse", name)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("rev-parse %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

// spec converts the address of a build context as the front end does.
func spec(t *testing.T, url string) (git.Spec, error) {
	t.Helper()
	st, ok, err := dockerui.DetectGitContext(url, nil)
	if err != nil {
		return git.Spec{}, err
	}
	if !ok {
		t.Fatalf("%s is no git address", url)
	}
	def, err := st.Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(data); err != nil {
			t.Fatal(err)
		}
		if src := op.GetSource(); src != nil {
			return git.ParseSource(src)
		}
	}
	t.Fatal("no source operation")
	return git.Spec{}, nil
}

// get resolves an address and checks it out.
func get(t *testing.T, r *git.Repositories, url string) (string, error) {
	t.Helper()
	s, err := spec(t, url)
	if err != nil {
		return "", err
	}
	c, err := r.Resolve(t.Context(), s)
	if err != nil {
		return "", err
	}
	var stderr bytes.Buffer
	return r.Checkout(t.Context(), s, c, t.TempDir(), &stderr)
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "(none)"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestAddresses has the 27 cases of BuildKit's testGitQueryString for both protocols,
// with the same expected results.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"smart sha1", "dumb sha1", "smart sha256"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			_, format, _ := strings.Cut(kind, " ")
			s := newSite(t, format, strings.HasPrefix(kind, "dumb"))
			v2, latest := s.rev("v0.0.2"), s.rev("latest")
			for _, tt := range []struct {
				name, query string
				file, want  string
				fails       string
			}{
				{name: "tag with invalid commit", query: "?tag=v0.0.2&commit=" + latest, fails: "expected checksum to match"},
				{name: "old style ref", query: "#v0.0.2", want: "v0.0.2\n"},
				{name: "querystring ref", query: "?ref=base", want: "base\n"},
				{name: "querystring branch", query: "?branch=base", want: "base\n"},
				{name: "querystring invalid branch", query: "?branch=invalid", fails: "repository does not contain ref"},
				{name: "tag as branch", query: "?branch=v0.0.2", fails: "repository does not contain ref"},
				{name: "allowed mixed refs", query: "?tag=v0.0.2#refs/tags/v0.0.2", want: "v0.0.2\n"},
				{name: "by commit", query: "?commit=" + latest, want: "latest\n"},
				{name: "by commit (wrong short)", query: "?commit=" + v2[:8], fails: "expected checksum to match"},
				{name: "by commit (short)", query: "?commit=" + latest[:8], want: "latest\n"},
				{name: "ref by commit", query: "?ref=" + v2, want: "v0.0.2\n"},
				{name: "ref by commit (short)", query: "?ref=" + v2[:8], fails: "repository does not contain ref"},
				{name: "tag with commit", query: "?tag=v0.0.2&commit=" + v2, want: "v0.0.2\n"},
				{name: "commit with commit", query: "?ref=" + v2 + "&commit=" + v2, want: "v0.0.2\n"},
				{name: "latest with commit", query: "?commit=" + latest, want: "latest\n"},
				{name: "mismatch refs", query: "?tag=v0.0.2#refs/heads/master", fails: "ref conflicts"},
				{name: "sub old style", query: "#feature:sub", want: "subfeature\n"},
				{name: "sub query", query: "?subdir=sub&ref=feature", want: "subfeature\n"},
				{name: "with git", query: "?keep-git-dir=true", file: ".git/HEAD", want: latest + "\n"},
				{name: "with git and tag", query: "?tag=v0.0.2&keep-git-dir=true", file: ".git/HEAD", want: v2 + "\n"},
				{name: "with git, default", query: "", file: ".git/HEAD", want: "(none)"},
				{name: "with git, no value", query: "?keep-git-dir&submodules", file: ".git/HEAD", want: latest + "\n"},
				{name: "with git, forbidden", query: "?keep-git-dir=false", file: ".git/HEAD", want: "(none)"},
				{name: "with submodule", query: "", file: "submod/file", want: "123\n"},
				{name: "with submodule, set", query: "?submodules=true", file: "submod/file", want: "123\n"},
				{name: "with submodule, no value", query: "?submodules", file: "submod/file", want: "123\n"},
				{name: "without submodule", query: "?submodules=false", file: "submod/file", want: "(none)"},

				{name: "annotated tag", query: "#annotated", want: "v0.0.2\n"},
				{name: "annotated tag, its commit", query: "?tag=annotated&commit=" + v2, want: "v0.0.2\n"},
				{name: "annotated tag, its object", query: "?tag=annotated&commit=" + s.rev("annotated"), want: "v0.0.2\n"},
				{name: "annotated tag, kept", query: "?tag=annotated&keep-git-dir", file: ".git/HEAD", want: v2 + "\n"},
				{name: "object of a tag", query: "#" + s.rev("annotated"), want: "v0.0.2\n"},
				{name: "fetch by commit", query: "?branch=master&fetch-by-commit&commit=" + v2, want: "v0.0.2\n"},
				{name: "fetch by commit, none", query: "?branch=master&fetch-by-commit", fails: "fetch-by-commit requires a checksum"},
				{name: "fetch by commit, short", query: "?fetch-by-commit&commit=" + v2[:8], fails: "requires a full commit SHA checksum"},
				{name: "subdir through a link", query: "#master:link", fails: "contains non-directory"},
				{name: "subdir is a file", query: "#master:foo", fails: "contains non-directory"},
				{name: "subdir leads up", query: "#feature:../../sub", want: "subfeature\n"},
				{name: "no subdir", query: "#master:nothing", fails: "failed to lstat \"nothing\": statat nothing: no such file"},
				{name: "checksum is no hash", query: "?checksum=xyz", fails: "expected hex commit hash"},
				{name: "unknown query", query: "?depth=3", fails: "unexpected query"},
			} {
				if kind != "smart sha1" && !strings.Contains(tt.name, "git") && !strings.Contains(tt.name, "commit") {
					continue // hash algorithm and protocol make no difference
				}
				t.Run(tt.name, func(t *testing.T) {
					dir, err := get(t, s.repositories(), s.url+"/main/.git"+tt.query)
					if tt.fails != "" {
						if err == nil || !strings.Contains(err.Error(), tt.fails) {
							t.Fatalf("error %v, want %q", err, tt.fails)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					file := tt.file
					if file == "" {
						file = "foo"
					}
					if got := read(t, dir, file); got != tt.want {
						t.Errorf("%s has %q, want %q", file, got, tt.want)
					}
				})
			}
		})
	}
}

// TestFiles checks the modes, times and types of files in a checkout.
func TestFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sha1", false)
	dir, err := get(t, s.repositories(), s.url+"/main/.git?mtime=commit")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		".gitmodules -rw-r--r--", "Dockerfile -rw-r--r--", "dir drwxr-xr-x", "dir/file -rw-r--r--", "foo -rw-r--r--",
		"link Lrwxrwxrwx", "run -rwxr-xr-x", "submod drwxr-xr-x", "submod/file -rw-r--r--",
	}
	var got []string
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.ModTime().Equal(time.Unix(1100000000, 0)) {
			t.Errorf("%s is of %v", path, info.ModTime())
		}
		if rel, _ := filepath.Rel(dir, path); rel != "." {
			got = append(got, rel+" "+info.Mode().String())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("files\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestKept checks the content of a .git directory that is kept.
func TestKept(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sha1", false)
	url := strings.Replace(s.url, "http://", "http://user:hunter2@", 1) + "/main/.git"
	for ref, want := range map[string][]string{
		"master":    {"refs/heads/master", s.rev("master")},
		"v0.0.2":    {"refs/tags/v0.0.2", s.rev("v0.0.2")},
		"annotated": {"refs/tags/annotated", s.rev("annotated")},
	} {
		dir, err := get(t, s.repositories(), url+"?keep-git-dir&ref="+ref)
		if err != nil {
			t.Fatal(err)
		}
		if got := rev(t, dir, want[0]); got != want[1] {
			t.Errorf("%s is %s, want %s", want[0], got, want[1])
		}
		cmd := exec.CommandContext(t.Context(), "git", "-c", "safe.directory=*", "status", "--porcelain")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("git status: %v, %s", err, out)
		}
		for _, name := range []string{".git/FETCH_HEAD", ".git/logs", ".git/hooks"} {
			if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				t.Errorf("%s was left", name)
			}
		}
		conf := read(t, dir, ".git/config")
		if !strings.Contains(conf, "url = "+s.url+"/main/.git\n") {
			t.Errorf("the remote is not in the configuration:\n%s", conf)
		}
		noText(t, dir, "hunter2")
		noText(t, s.cache, "hunter2")
	}
}

// noText reports an error if a file below dir contains text.
func noText(t *testing.T, dir, text string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(text)) {
			t.Errorf("%s has the secret in it", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSame checks that two checkouts with .git from two caches have the same bytes.
func TestSame(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sha1", false)
	var sums []string
	for range 2 {
		s.cache = t.TempDir()
		dir, err := get(t, s.repositories(), s.url+"/main/.git?keep-git-dir")
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "find . -type f | sort | xargs sha256sum")
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, string(out))
	}
	if sums[0] != sums[1] {
		t.Errorf("first\n%s\nsecond\n%s", sums[0], sums[1])
	}
}

// TestCached checks that a commit in the cache is not fetched again.
func TestCached(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sha1", false)
	url := s.url + "/main/.git?submodules=false"
	if _, err := get(t, s.repositories(), url); err != nil {
		t.Fatal(err)
	}
	first := s.fetch.packs
	if first == 0 {
		t.Fatal("nothing was fetched")
	}
	if _, err := get(t, s.repositories(), url+"&keep-git-dir"); err != nil {
		t.Fatal(err)
	}
	if s.fetch.packs != first {
		t.Errorf("%d fetches after the first %d", s.fetch.packs-first, first)
	}
	lists := s.fetch.lists
	if _, err := get(t, s.repositories(), url+"&ref="+s.rev("master")); err != nil {
		t.Fatal(err)
	}
	if s.fetch.lists != lists {
		t.Error("the remote was asked about a commit that is here")
	}
	// A changed branch is detected. Its new name may be below the old name.
	script(t, filepath.Join(s.root, "main"), `
git checkout -q --detach; git branch -D base feature; git branch base/x v0.0.2
echo moved >foo; git commit -qam moved; git branch -f master; git tag -f latest`)
	for ref, want := range map[string]string{"master": "moved\n", "latest": "moved\n", "base/x": "v0.0.2\n"} {
		dir, err := get(t, s.repositories(), url+"&ref="+ref)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, dir, "foo"); got != want {
			t.Errorf("%s: foo has %q, want %q", ref, got, want)
		}
	}
}

// TestMoved changes the branch between Resolve and Checkout.
func TestMoved(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sha1", false)
	r := s.repositories()
	sp, err := spec(t, s.url+"/main/.git#master")
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Resolve(t.Context(), sp)
	if err != nil {
		t.Fatal(err)
	}
	script(t, filepath.Join(s.root, "main"), "echo moved >foo; git commit -qam moved")
	dir, err := r.Checkout(t.Context(), sp, c, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, "foo"); got != "latest\n" {
		t.Errorf("foo has %q", got)
	}
}

// TestDamage adds files to the cache that a killed git process may leave.
func TestDamage(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sha1", false)
	url := s.url + "/main/.git?submodules=false&ref="
	if _, err := get(t, s.repositories(), url+"base"); err != nil {
		t.Fatal(err)
	}
	repos, err := filepath.Glob(filepath.Join(s.cache, "*", "repository"))
	if err != nil || len(repos) != 1 {
		t.Fatalf("cache %v, %v", repos, err)
	}
	for _, name := range []string{"shallow.lock", "packed-refs.lock", "refs/shale/x.lock", "objects/pack/tmp_pack_x"} {
		if err := os.WriteFile(filepath.Join(repos[0], name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := get(t, s.repositories(), url+"v0.0.2"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(repos[0], "objects/pack/tmp_pack_x")); err == nil {
		t.Error("a half-written pack was left")
	}
	// The cached repository is not valid any more.
	if err := os.RemoveAll(filepath.Join(repos[0], "objects")); err != nil {
		t.Fatal(err)
	}
	if dir, err := get(t, s.repositories(), url+"master"); err != nil || read(t, dir, "foo") != "latest\n" {
		t.Fatal(err)
	}
}

// TestParallel runs parallel checkouts with one empty cache.
func TestParallel(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sha1", false)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			ref := []string{"base", "feature", "master", "annotated"}[i%4]
			if _, err := get(t, s.repositories(), s.url+"/main/.git#"+ref); err != nil {
				t.Errorf("%s: %v", ref, err)
			}
		})
	}
	group.Wait()
}

// TestKey checks which options change the key of a checkout.
func TestKey(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sha1", false)
	r := s.repositories()
	key := func(query string) string {
		sp, err := spec(t, s.url+"/main/.git"+query)
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.Resolve(t.Context(), sp)
		if err != nil {
			t.Fatal(err)
		}
		return git.Key(sp, c)
	}
	v2 := key("#v0.0.2")
	for _, same := range []string{"#annotated", "#" + s.rev("v0.0.2"), "?mtime=checkout&ref=v0.0.2", "?tag=v0.0.2"} {
		if key(same) != v2 {
			t.Errorf("%s has another key", same)
		}
	}
	seen := map[string]string{v2: "#v0.0.2"}
	for _, other := range []string{
		"#master", "#v0.0.2:dir", "?keep-git-dir&ref=v0.0.2", "?keep-git-dir&ref=annotated",
		"?submodules=false&ref=v0.0.2", "?mtime=commit&ref=v0.0.2",
	} {
		k := key(other)
		if seen[k] != "" {
			t.Errorf("%s has the key of %s", other, seen[k])
		}
		seen[k] = other
	}
}

// TestObjects reads the object that contains the date of a context.
func TestObjects(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sha1", false)
	r := s.repositories()
	sp, err := spec(t, s.url+"/main/.git#annotated")
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Resolve(t.Context(), sp)
	if err != nil {
		t.Fatal(err)
	}
	o, err := r.Objects(t.Context(), sp, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.Commit != s.rev("v0.0.2") || !bytes.Contains(o.Raw, []byte("committer c <c@example.com> 1100000000 +0000")) ||
		!bytes.Contains(o.Tag, []byte("tag annotated")) {
		t.Errorf("objects %s\n%s\n%s", o.Commit, o.Raw, o.Tag)
	}
}

func ExampleKey() {
	fmt.Printf("%q\n", git.Key(git.Spec{Subdir: "docs"}, git.Commit{Object: "abc"}))
	// Output: "git checkout 1\x00abc\x00docs"
}
