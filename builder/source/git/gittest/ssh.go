package gittest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// SSH is an ssh server that offers git-upload-pack for the repositories below a
// directory. It accepts one user key.
type SSH struct {
	// Addr is the host and port.
	Addr string
	// HostKey is the server's key in the format of known_hosts(5).
	HostKey string

	listener net.Listener
}

// ServeSSH starts a server on a free port of the loopback interface. The caller must
// close it.
func ServeSSH(root string, user ssh.PublicKey) (*SSH, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	cfg := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if !bytes.Equal(key.Marshal(), user.Marshal()) {
				return nil, errors.New("unknown key")
			}
			return nil, nil //nolint:nilnil // no restrictions
		},
	}
	cfg.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		return nil, err
	}
	s := &SSH{Addr: l.Addr().String(), listener: l}
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return nil, err
	}
	s.HostKey = "[127.0.0.1]:" + port + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	go s.accept(root, cfg)
	return s, nil
}

// Close stops the server.
func (s *SSH) Close() error { return s.listener.Close() }

func (s *SSH) accept(root string, cfg *ssh.ServerConfig) {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close() //nolint:errcheck // over
			_, channels, requests, err := ssh.NewServerConn(conn, cfg)
			if err != nil {
				return
			}
			go ssh.DiscardRequests(requests)
			for ch := range channels {
				if ch.ChannelType() != "session" {
					_ = ch.Reject(ssh.UnknownChannelType, "no")
					continue
				}
				channel, requests, err := ch.Accept()
				if err != nil {
					return
				}
				go session(root, channel, requests)
			}
		}()
	}
}

func session(root string, channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close() //nolint:errcheck // over
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=/dev/null", "GIT_CONFIG_GLOBAL=" + config(root)}
	for req := range requests {
		var text struct{ Name, Value string }
		switch req.Type {
		case "env":
			if ssh.Unmarshal(req.Payload, &text) == nil && text.Name == "GIT_PROTOCOL" {
				env = append(env, "GIT_PROTOCOL="+text.Value)
			}
			_ = req.Reply(true, nil)
		case "exec":
			var line struct{ Command string }
			_ = ssh.Unmarshal(req.Payload, &line)
			_ = req.Reply(true, nil)
			status := struct{ Code uint32 }{uploadPack(root, line.Command, env, channel)}
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(status))
			return
		default:
			_ = req.Reply(false, nil)
		}
	}
}

func uploadPack(root, line string, env []string, channel io.ReadWriter) uint32 {
	name, ok := strings.CutPrefix(line, "git-upload-pack ")
	if !ok {
		return 127
	}
	dir := filepath.Join(root, filepath.Join("/", strings.Trim(name, "'")))
	cmd := exec.Command("git", "upload-pack", dir) //nolint:noctx // a test's server
	cmd.Env = env
	cmd.Stdout = channel
	stdin, err := cmd.StdinPipe()
	if err != nil || cmd.Start() != nil {
		return 1
	}
	go func() {
		_, _ = io.Copy(stdin, channel)
		_ = stdin.Close()
	}()
	if cmd.Wait() != nil {
		return 1
	}
	return 0
}
