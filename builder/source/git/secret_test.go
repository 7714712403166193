package git_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/shale-build/shale/builder/source/git"
	"github.com/shale-build/shale/builder/source/git/gittest"
)

const token = "tok3n-of-the-test"

// private is a site that requires a header. It also checks the command lines of git.
type private struct {
	*site
	mu   sync.Mutex
	seen []string // paths of the requests with the header
	argv string   // a command line that contained the token
}

func newPrivate(t *testing.T, want string) *private {
	t.Helper()
	p := &private{site: newSite(t, "sha1", false)}
	h, err := gittest.Smart(p.root)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gittest.Authorized(want, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		p.mu.Lock()
		p.seen = append(p.seen, req.URL.Path)
		if line := withToken(t); line != "" {
			p.argv = line
		}
		p.mu.Unlock()
		h.ServeHTTP(w, req)
	})))
	t.Cleanup(srv.Close)
	p.url = srv.URL
	return p
}

// withToken searches for the token in the arguments of all processes.
func withToken(t *testing.T) string {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	coded := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + token))
	for _, name := range lines {
		data, err := os.ReadFile(name)
		if err == nil && (bytes.Contains(data, []byte(token)) || bytes.Contains(data, []byte(coded))) {
			return strings.ReplaceAll(string(data), "\x00", " ")
		}
	}
	return ""
}

func TestToken(t *testing.T) {
	t.Parallel()
	basic := "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token))
	for _, tt := range []struct {
		name, want string
		secret     func(host string) map[string]string
		user       string
		fails      string
	}{
		{
			name: "token", want: basic,
			secret: func(string) map[string]string { return map[string]string{"GIT_AUTH_TOKEN": token + "\n"} },
		},
		{
			name: "token of the host first", want: basic,
			secret: func(host string) map[string]string {
				return map[string]string{"GIT_AUTH_TOKEN": "other", "GIT_AUTH_TOKEN." + host: token}
			},
		},
		{
			name: "header", want: "Bearer " + token,
			secret: func(string) map[string]string { return map[string]string{"GIT_AUTH_HEADER": "Bearer " + token} },
		},
		{
			name: "header before token", want: "Bearer " + token,
			secret: func(string) map[string]string {
				return map[string]string{"GIT_AUTH_HEADER": "Bearer " + token, "GIT_AUTH_TOKEN": "other"}
			},
		},
		{name: "in the address", want: "basic " + base64.StdEncoding.EncodeToString([]byte("me:"+token)), user: "me:" + token + "@"},
		{name: "none", want: basic, fails: "--secret id=GIT_AUTH_TOKEN"},
		{
			name: "wrong", want: basic, fails: "--secret id=GIT_AUTH_TOKEN",
			secret: func(string) map[string]string { return map[string]string{"GIT_AUTH_TOKEN": "wr0ng"} },
		},
		{
			name: "another header in it", want: basic, fails: "line break",
			secret: func(string) map[string]string {
				return map[string]string{"GIT_AUTH_TOKEN": "x", "GIT_AUTH_HEADER": "x\r\nHost: y"}
			},
		},
		{
			name: "empty", want: basic, fails: "is empty",
			secret: func(string) map[string]string { return map[string]string{"GIT_AUTH_TOKEN": "\n"} },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPrivate(t, tt.want)
			if tt.secret != nil {
				p.secret = tt.secret(strings.TrimPrefix(p.url, "http://"))
			}
			url := strings.Replace(p.url, "http://", "http://"+tt.user, 1) + "/main/.git?submodules=false&keep-git-dir"
			dir, err := get(t, p.repositories(), url)
			if p.argv != "" {
				t.Errorf("the token is in an argument: %s", p.argv)
			}
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("error %v, want %q", err, tt.fails)
				}
				if err != nil && (strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "wr0ng")) {
					t.Errorf("the error has the token in it: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(p.seen) == 0 || read(t, dir, "foo") != "latest\n" {
				t.Error("the repository was not had")
			}
			for _, d := range []string{dir, p.cache} {
				noText(t, d, token)
				noText(t, d, base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token)))
			}
		})
	}
}

// TestTokenStays redirects to another host. The repository also has a submodule on that
// host.
func TestTokenStays(t *testing.T) {
	t.Parallel()
	p := newPrivate(t, "Bearer "+token)
	p.secret = map[string]string{"GIT_AUTH_HEADER": "Bearer " + token}
	var leaked []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		leaked = append(leaked, req.Header.Get("Authorization"))
		http.NotFound(w, req)
	}))
	defer other.Close()
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, other.URL+req.URL.RequestURI(), http.StatusFound)
	}))
	defer front.Close()
	_, err := get(t, p.repositories(), front.URL+"/main/.git")
	if err == nil || !strings.Contains(err.Error(), "redirects elsewhere") {
		t.Errorf("error %v", err)
	}
	script(t, filepath.Join(p.root, "main"), "git config -f .gitmodules submodule.submod.url "+other.URL+"/sub/.git; git commit -qam elsewhere")
	if _, err = get(t, p.repositories(), p.url+"/main/.git"); err == nil {
		t.Error("a submodule was had from a host that has none")
	}
	if len(leaked) == 0 {
		t.Error("the other host was not asked for the submodule")
	}
	for _, h := range leaked {
		if h != "" {
			t.Errorf("the other host was sent %q", h)
		}
	}
}

// keyring returns an agent with one key.
func keyring(t *testing.T) (agent.Agent, ssh.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: &private}); err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return keys, pub
}

// listen serves keys at path, which may be too long for the address of a socket.
func listen(keys agent.Agent, path string) (io.Closer, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.Listen("unix", filepath.Join("/proc/self/fd", itoa(dir.Fd()), filepath.Base(path)))
	if err != nil {
		return nil, err
	}
	// When the socket is closed, the number may belong to another directory.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = agent.ServeAgent(keys, conn)
				_ = conn.Close()
			}()
		}
	}()
	return l, nil
}

func itoa(n uintptr) string {
	digits := ""
	for ; n > 0 || digits == ""; n /= 10 {
		digits = string(rune('0'+n%10)) + digits
	}
	return digits
}

func TestSSH(t *testing.T) {
	t.Parallel()
	s := newSite(t, "sha1", false)
	keys, public := keyring(t)
	server, err := gittest.ServeSSH(s.root, public)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	stranger, _ := keyring(t)
	otherKey := "[127.0.0.1]:" + server.Addr[strings.LastIndex(server.Addr, ":")+1:] + " ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDLpKuEKYPi9jAkbJEjWBhHNRzlvVR1YtYPPx7sfmHpi"
	for _, tt := range []struct {
		name, known, scanned string
		keys                 agent.Agent
		fails                string
	}{
		{name: "found out", scanned: server.HostKey, keys: keys},
		{name: "known", known: server.HostKey, keys: keys},
		{name: "known and found out", known: server.HostKey, scanned: otherKey, keys: keys},
		{name: "unknown", keys: keys, fails: "known_hosts"},
		{name: "changed", known: otherKey, scanned: server.HostKey, keys: keys, fails: "known_hosts"},
		{name: "no agent", scanned: server.HostKey, fails: "--ssh default"},
		{name: "no key", scanned: server.HostKey, keys: stranger, fails: "--ssh default"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			known := filepath.Join(t.TempDir(), "known hosts")
			if err := os.WriteFile(known, []byte(tt.known+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			opts := git.Options{Dir: t.TempDir(), WorkDir: t.TempDir(), KnownHosts: []string{known}}
			if tt.keys != nil {
				opts.Agent = func(_ context.Context, _, path string) (io.Closer, error) { return listen(tt.keys, path) }
			}
			sp, err := spec(t, "ssh://git@"+server.Addr+"/main/.git?submodules=false")
			if err != nil {
				t.Fatal(err)
			}
			sp.KnownHosts = tt.scanned
			r := git.New(opts)
			c, err := r.Resolve(t.Context(), sp)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("error %v, want %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			dir, err := r.Checkout(t.Context(), sp, c, t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, dir, "foo"); got != "latest\n" {
				t.Errorf("foo has %q", got)
			}
		})
	}
}
