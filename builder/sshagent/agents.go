package sshagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// maxKey is the maximum size in bytes of a file with a key.
const maxKey = 100 * 1024

// dialLimit is the time limit for a connection to the user's agent.
const dialLimit = 2 * time.Second

// LookupEnv has the semantics of os.LookupEnv.
type LookupEnv func(name string) (string, bool)

// Agents are the agents of one build by ID. The zero value and nil are empty. Agents is
// safe for concurrent use.
type Agents struct {
	agents map[string]opener
}

// opener returns an agent for one connection, and a Closer that ends the connection.
type opener func(ctx context.Context) (agent.ExtendedAgent, io.Closer, error)

// New returns the agents of sources. It returns an error if a path is neither a socket
// nor a private key, so that the build fails before its first step.
func New(sources []Source, env LookupEnv) (*Agents, error) {
	a := &Agents{agents: map[string]opener{}}
	for _, s := range sources {
		if s.ID == "" {
			s.ID = DefaultID
		}
		if a.agents[s.ID] != nil {
			return nil, fmt.Errorf("duplicate agent ID %q", s.ID)
		}
		open, err := s.opener(env)
		if err != nil {
			return nil, fmt.Errorf("ssh agent %q: %w", s.ID, err)
		}
		a.agents[s.ID] = open
	}
	return a, nil
}

func (s Source) opener(env LookupEnv) (opener, error) {
	paths := s.Paths
	if len(paths) == 0 {
		socket, _ := env("SSH_AUTH_SOCK")
		if socket == "" {
			return nil, errors.New("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
		}
		paths = []string{socket}
	}
	keyring := agent.NewKeyring()
	socket, keys := "", 0
	for _, p := range paths {
		info, err := os.Stat(p)
		switch {
		case err != nil:
			return nil, err
		case info.Mode()&os.ModeSocket != 0 && socket != "":
			return nil, errors.New("only single socket allowed")
		case info.Mode()&os.ModeSocket != 0:
			if socket, err = filepath.Abs(p); err != nil {
				return nil, err
			}
		default:
			keys++
			if err := addKey(keyring, p); err != nil {
				return nil, err
			}
		}
	}
	if socket != "" && keys > 0 {
		return nil, errors.New("invalid combination of keys and sockets")
	}
	if socket != "" {
		return func(ctx context.Context) (agent.ExtendedAgent, io.Closer, error) { return dial(ctx, socket) }, nil
	}
	held, ok := keyring.(agent.ExtendedAgent)
	if !ok {
		return nil, errors.New("the agent in this process cannot sign with flags")
	}
	return func(context.Context) (agent.ExtendedAgent, io.Closer, error) { return held, io.NopCloser(nil), nil }, nil
}

func addKey(keyring agent.Agent, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	key, err := ssh.ParseRawPrivateKey(data)
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		return fmt.Errorf("parse %s: %w; add it to an agent (ssh-add) and pass that", path, err)
	}
	if err != nil {
		return fmt.Errorf("parse %s: %w", path, err)
	}
	if err := keyring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		return fmt.Errorf("add %s to agent: %w", path, err)
	}
	return nil
}

func dial(ctx context.Context, socket string) (agent.ExtendedAgent, io.Closer, error) {
	dialer := net.Dialer{Timeout: dialLimit}
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the ssh agent: %w", err)
	}
	return agent.NewClient(conn), conn, nil
}

// Has reports whether there is an agent called id; "" is DefaultID.
func (a *Agents) Has(id string) bool { return a.opener(id) != nil }

func (a *Agents) opener(id string) opener {
	if a == nil {
		return nil
	}
	if id == "" {
		id = DefaultID
	}
	return a.agents[id]
}

// NotFoundError is returned if an agent is requested that the build was not given.
type NotFoundError struct {
	ID string
	// Any is true if the build was given other agents.
	Any bool
}

func (e *NotFoundError) Error() string {
	if e.Any {
		return "unset ssh forward key " + e.ID
	}
	return fmt.Sprintf("no SSH key %q forwarded from the client", e.ID)
}

// Find returns nil if there is an agent called id, and otherwise a *NotFoundError.
func (a *Agents) Find(id string) error {
	if a.Has(id) {
		return nil
	}
	if id == "" {
		id = DefaultID
	}
	return &NotFoundError{ID: id, Any: a != nil && len(a.agents) > 0}
}
