package sshagent

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func TestParse(t *testing.T) {
	for value, want := range map[string]Source{
		"default":       {ID: "default"},
		"":              {ID: "default"},
		"=x":            {ID: "default", Paths: []string{"x"}},
		"default=":      {ID: "default"},
		"git=/s":        {ID: "git", Paths: []string{"/s"}},
		"git=a,b":       {ID: "git", Paths: []string{"a", "b"}},
		"git=/odd=name": {ID: "git", Paths: []string{"/odd=name"}},
	} {
		if diff := cmp.Diff(want, Parse(value)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", value, diff)
		}
	}
}

// writeKey makes a private key and returns its file and its public key.
func writeKey(t *testing.T, passphrase string) (string, ssh.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "test")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "test", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return path, key
}

// startAgent serves a keyring like the user's own agent.
func startAgent(t *testing.T, keyring agent.Agent) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keyring, conn); _ = conn.Close() }()
		}
	}()
	return path
}

func unset(string) (string, bool) { return "", false }

func TestErrors(t *testing.T) {
	key, _ := writeKey(t, "")
	locked, _ := writeKey(t, "secret")
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := startAgent(t, agent.NewKeyring())
	tests := map[string][]string{
		"invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set": {"default"},
		"no such file or directory":                                      {"default=/none"},
		"only single socket allowed":                                     {"a=" + socket + "," + socket},
		"invalid combination of keys and sockets":                        {"a=" + socket + "," + key},
		"parse " + text: {"a=" + text},
		"passphrase protected; add it to an agent (ssh-add)": {"a=" + locked},
		`duplicate agent ID "default"`:                       {"default=" + key, "default=" + socket},
	}
	for want, values := range tests {
		var sources []Source
		for _, v := range values {
			sources = append(sources, Parse(v))
		}
		if _, err := New(sources, unset); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", values, err, want)
		}
	}
}

func TestFind(t *testing.T) {
	key, _ := writeKey(t, "")
	agents, err := New([]Source{{ID: "git", Paths: []string{key}}}, unset)
	if err != nil {
		t.Fatal(err)
	}
	var none *Agents
	for want, err := range map[string]error{
		`no SSH key "default" forwarded from the client`: none.Find(""),
		`no SSH key "git" forwarded from the client`:     (&Agents{}).Find("git"),
		"unset ssh forward key default":                  agents.Find("default"),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if err := agents.Find("git"); err != nil {
		t.Error(err)
	}
}

func TestListen(t *testing.T) {
	path, key := writeKey(t, "")
	keyring := agent.NewKeyring()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := keyring.Add(agent.AddedKey{PrivateKey: private, Comment: "users own"}); err != nil {
		t.Fatal(err)
	}
	users, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	socket := startAgent(t, keyring)
	agents, err := New([]Source{{ID: "file", Paths: []string{path}}, {}}, func(name string) (string, bool) {
		return socket, name == "SSH_AUTH_SOCK"
	})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]ssh.PublicKey{"file": key, "default": users, "": users} {
		t.Run("id "+id, func(t *testing.T) {
			// This path is longer than the limit for sockets.
			dir := filepath.Join(t.TempDir(), strings.Repeat("d", 100))
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			s, err := agents.Listen(t.Context(), id, filepath.Join(dir, "sock"))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Chmod(0o640); err != nil {
				t.Error(err)
			}
			info, err := os.Stat(s.Path)
			if err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("the socket is %v, %v", info, err)
			}
			conn := connect(t, dir)
			use(t, agent.NewClient(conn), want)
			second := connect(t, dir) // left open
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			_ = second.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := second.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a connection outlives the step: %v", err)
			}
			if _, err := os.Lstat(s.Path); !os.IsNotExist(err) {
				t.Errorf("the socket is still there: %v", err)
			}
		})
	}
	if list, err := keyring.List(); err != nil || len(list) != 1 {
		t.Errorf("the user's agent now has %v, %v", list, err)
	}
}

func connect(t *testing.T, dir string) net.Conn {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	conn, err := net.Dial("unix", "/proc/self/fd/"+strconv.Itoa(int(f.Fd()))+"/sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// use checks that a client can do everything that is permitted, and that other requests
// fail.
func use(t *testing.T, client agent.ExtendedAgent, want ssh.PublicKey) {
	t.Helper()
	list, err := client.List()
	if err != nil || len(list) != 1 || !cmp.Equal(list[0].Marshal(), want.Marshal()) {
		t.Fatalf("keys are %v, %v", list, err)
	}
	sig, err := client.Sign(want, []byte("data"))
	if err != nil || want.Verify([]byte("data"), sig) != nil {
		t.Errorf("signature %v, %v", sig, err)
	}
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, extErr := client.Extension("session-bind@openssh.com", nil)
	for what, err := range map[string]error{
		"add":       client.Add(agent.AddedKey{PrivateKey: other}),
		"remove":    client.Remove(want),
		"removeAll": client.RemoveAll(),
		"lock":      client.Lock([]byte("x")),
		"unlock":    client.Unlock([]byte("x")),
		"extension": extErr,
	} {
		if err == nil {
			t.Errorf("a borrower may %s", what)
		}
	}
	if list, err := client.List(); err != nil || len(list) != 1 {
		t.Errorf("afterwards the keys are %v, %v", list, err)
	}
}
