package git_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/source/git"
)

// TestHostileRepository uses repositories that try to make git run programs, read files
// of this machine, or write outside of the checkout.
func TestHostileRepository(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, script, fails string
	}{
		{
			name:   "submodule by ext transport",
			script: `git config -f .gitmodules submodule.submod.url "ext::sh -c touch% $MARK"`,
			fails:  "not allowed",
		},
		{
			name:   "submodule is a directory here",
			script: `git config -f .gitmodules submodule.submod.url "$PWD/../sub/.git"`,
			fails:  "submodules cannot be files of this machine",
		},
		{
			name:   "submodule is a file URL",
			script: `git config -f .gitmodules submodule.submod.url "file://$PWD/../sub/.git"`,
			fails:  "submodules cannot be files of this machine",
		},
		{
			name:   "submodule's address is an option",
			script: `git config -f .gitmodules submodule.submod.url "--upload-pack=touch $MARK"`,
			fails:  "git submodule",
		},
		{
			name:   "submodule is updated by a command",
			script: `git config -f .gitmodules submodule.submod.update "!touch $MARK"`,
			fails:  "git submodule",
		},
		{
			name: "submodule leads up",
			script: `sed -i 's,path = submod,path = ../../outside,' .gitmodules
git config -f .gitmodules submodule.submod.url "$SUB"`,
		},
		{
			name: "filter and hooks",
			script: `printf '* filter=evil diff=evil merge=evil\n' >.gitattributes
mkdir -p hooks; printf '#!/bin/sh\ntouch %s\n' "$MARK" >hooks/post-checkout; chmod +x hooks/post-checkout
printf '[filter "evil"]\n\tsmudge = touch %s\n[core]\n\thooksPath = hooks\n\tfsmonitor = touch %s\n' "$MARK" "$MARK" >.gitconfig`,
		},
		{
			name: "link to a directory outside, and a file below it",
			script: `h=$(git hash-object -w foo); d=$(printf '100644 blob %s\tfile\n' $h | git mktree)
l=$(printf /tmp | git hash-object -w --stdin)
t=$(printf '120000 blob %s\ta\n040000 tree %s\ta\n' $l $d | git mktree)
git update-ref refs/heads/master $(git commit-tree -m x $t); exit 0`,
			fails: "",
		},
		{
			name: "file called .git/config",
			script: `h=$(git hash-object -w foo); d=$(printf '100644 blob %s\tconfig\n' $h | git mktree)
t=$(printf '040000 tree %s\t.git\n' $d | git mktree)
git update-ref refs/heads/master $(git commit-tree -m x $t); exit 0`,
			fails: ".git/config",
		},
		{
			name: "name that leads up",
			script: `h=$(git hash-object -w foo); d=$(printf '100644 blob %s\tevil\n' $h | git mktree)
t=$(printf '040000 tree %s\t..\n' $d | git mktree)
git update-ref refs/heads/master $(git commit-tree -m x $t); exit 0`,
			fails: "invalid path",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "sha1", false)
			mark := filepath.Join(t.TempDir(), "mark")
			script(t, filepath.Join(s.root, "main"),
				"MARK="+mark+"; SUB="+s.url+"/sub/.git\n"+tt.script+"\ngit add -A . 2>/dev/null || :; git commit -qm evil || :")
			for _, keep := range []string{"", "?keep-git-dir"} {
				dir, err := get(t, s.repositories(), s.url+"/main/.git"+keep)
				if tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)) {
					t.Errorf("error %v, want %q", err, tt.fails)
				}
				if _, err := os.Lstat(mark); err == nil {
					t.Fatal("a program of the repository was run")
				}
				for _, name := range []string{"outside", "evil", "../outside"} {
					if _, err := os.Lstat(filepath.Join(filepath.Dir(dir), name)); dir != "" && err == nil {
						t.Errorf("%s was written outside the checkout", name)
					}
				}
				if _, err := os.Lstat("/tmp/file"); err == nil {
					t.Error("/tmp/file was written")
				}
			}
		})
	}
}

// TestHostileAddress uses addresses and attributes that git could mistake for options.
func TestHostileAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, id string
		attrs    map[string]string
		fails    string
	}{
		{name: "ref is an option", id: "h/r.git#--upload-pack=x", fails: "invalid git ref"},
		{name: "ref is a range", id: "h/r.git#a..b", fails: "invalid git ref"},
		{name: "ref is a refspec", id: "h/r.git#a%3Ab:c", fails: ""},
		{name: "ref with a space", id: "h/r.git#a%20b", fails: "invalid git ref"},
		{name: "ref with a line break", id: "h/r.git#a%0ab", fails: "invalid git ref"},
		{name: "host is an option", id: "h/r.git", attrs: map[string]string{pb.AttrFullRemoteURL: "ssh://-oProxyCommand=x/r.git"}, fails: "host"},
		{name: "other transport", id: "h/r.git", attrs: map[string]string{pb.AttrFullRemoteURL: "ext::sh -c x"}, fails: "git repository"},
		{name: "file", id: "h/r.git", attrs: map[string]string{pb.AttrFullRemoteURL: "file:///etc"}, fails: "git repository"},
		{name: "line break", id: "h/r.git", attrs: map[string]string{pb.AttrFullRemoteURL: "git@h:a\nb"}, fails: "git"},
		{name: "unknown attribute", id: "h/r.git", attrs: map[string]string{"git.bundle": "x"}, fails: "unknown attribute"},
		{name: "times", id: "h/r.git", attrs: map[string]string{pb.AttrGitMTime: "now"}, fails: "neither"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sp, err := git.ParseSource(&pb.SourceOp{Identifier: "git://" + tt.id, Attrs: tt.attrs})
			if tt.fails == "" {
				if err != nil || strings.Contains(sp.Ref, ":") {
					t.Errorf("%+v, %v", sp, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%+v, error %v, want %q", sp, err, tt.fails)
			}
		})
	}
}

// TestUserConfiguration sets a configuration and variables that would redirect git or
// make it run programs.
func TestUserConfiguration(t *testing.T) { //nolint:paralleltest // sets variables
	s := newSite(t, "sha1", false)
	home := t.TempDir()
	mark := filepath.Join(home, "mark")
	evil := "[url \"http://127.0.0.1:1/\"]\n\tinsteadOf = " + s.url + "\n[core]\n\thooksPath = " + home +
		"\n\tsshCommand = touch " + mark + "\n\tfsmonitor = touch " + mark + "\n[credential]\n\thelper = \"!touch " + mark + "\"\n"
	for _, name := range []string{"post-checkout", "reference-transaction"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte("#!/bin/sh\ntouch "+mark+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(evil), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, v := range [][2]string{
		{"HOME", home},
		{"XDG_CONFIG_HOME", home},
		{"GIT_CONFIG_GLOBAL", filepath.Join(home, ".gitconfig")},
		{"GIT_CONFIG_SYSTEM", filepath.Join(home, ".gitconfig")},
		{"GIT_SSH_COMMAND", "touch " + mark},
		{"GIT_DIR", home},
		{"GIT_WORK_TREE", home},
		{"GIT_TEMPLATE_DIR", home},
		{"GIT_EXEC_PATH", home},
		{"GIT_ASKPASS", "touch " + mark},
		{"GIT_TRACE", filepath.Join(home, "mark")},
	} {
		t.Setenv(v[0], v[1])
	}
	dir, err := get(t, s.repositories(), s.url+"/main/.git?keep-git-dir")
	if err != nil {
		t.Fatal(err)
	}
	if read(t, dir, "foo") != "latest\n" {
		t.Error("another repository was checked out")
	}
	if _, err := os.Lstat(mark); err == nil {
		t.Error("the user's configuration was used")
	}
}

// TestNoGit checks the error for a missing or unusable git program.
func TestNoGit(t *testing.T) { //nolint:paralleltest // sets a variable
	for _, tt := range []struct{ name, program, fails string }{
		{name: "none", fails: "not in PATH"},
		{name: "old", program: "#!/bin/sh\necho git version 2.25.1\n", fails: "2.32 or later"},
		{name: "broken", program: "#!/bin/sh\nexit 3\n", fails: "does not run"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.program != "" {
				if err := os.WriteFile(filepath.Join(dir, "git"), []byte(tt.program), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir)
			r := git.New(git.Options{Dir: t.TempDir(), WorkDir: t.TempDir()})
			_, err := r.Resolve(t.Context(), git.Spec{Remote: "https://127.0.0.1:1/r.git"})
			if !errors.Is(err, git.ErrNoGit) || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("error %v, want %q", err, tt.fails)
			}
		})
	}
}

// TestCancelled cancels a fetch from a server that never answers.
func TestCancelled(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-block }))
	defer srv.Close()
	defer close(block)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	sp, err := spec(t, srv.URL+"/r.git")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = git.New(git.Options{Dir: t.TempDir(), WorkDir: t.TempDir()}).Resolve(ctx, sp)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 10*time.Second {
		t.Errorf("error %v after %v", err, time.Since(start))
	}
}

func FuzzParseSource(f *testing.F) {
	for _, s := range []string{
		"h/r.git#ref:sub", "github.com/a/b.git", "git@h:a/b.git#x", "https://u:p@h/r.git", "h:22/r.git#a:../..", "h/r.git?x=1#--y",
	} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, id, remote string) {
		sp, err := git.ParseSource(&pb.SourceOp{Identifier: "git://" + id, Attrs: map[string]string{pb.AttrFullRemoteURL: remote}})
		if err != nil {
			return
		}
		if strings.HasPrefix(sp.Ref, "-") || strings.HasPrefix(sp.Remote, "-") || strings.ContainsAny(sp.Remote+sp.Ref, "\x00\n") {
			t.Errorf("%q %q gives %+v", id, remote, sp)
		}
		if sp.Subdir != "" && !filepath.IsLocal(sp.Subdir) {
			t.Errorf("%q leads out: %q", id, sp.Subdir)
		}
	})
}
