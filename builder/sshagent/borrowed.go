package sshagent

import (
	"errors"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// borrowed permits listing and using the keys of an agent, and refuses all other
// requests.
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

// Extension returns the error of an agent without extensions, so that ssh continues.
func (borrowed) Extension(string, []byte) ([]byte, error) {
	return nil, agent.ErrExtensionUnsupported
}
