package sshagent

import (
	"errors"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// borrowed lets keys be listed and used, and refuses the rest.
type borrowed struct{ agent.ExtendedAgent }

func (borrowed) Add(agent.AddedKey) error {
	return errors.New("adding new keys not allowed during a build")
}

func (borrowed) Remove(ssh.PublicKey) error {
	return errors.New("removing keys not allowed during a build")
}

func (borrowed) RemoveAll() error {
	return errors.New("removing keys not allowed during a build")
}

func (borrowed) Lock([]byte) error {
	return errors.New("locking agent not allowed during a build")
}

func (borrowed) Unlock([]byte) error {
	return errors.New("unlocking agent not allowed during a build")
}

// Extension answers as an agent that knows none, so that ssh goes on without.
func (borrowed) Extension(string, []byte) ([]byte, error) {
	return nil, agent.ErrExtensionUnsupported
}
