//go:build e2e

package e2e

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// sshkeys prints the type and fingerprint of each key of the agent at SSH_AUTH_SOCK, and
// signs with each key. Then it tries operations that a step must not be able to do with a
// forwarded agent. It fails if one of them succeeds.
func sshkeys([]string) error {
	conn, err := net.Dial("unix", os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := agent.NewClient(conn)
	keys, err := client.List()
	if err != nil {
		return err
	}
	for _, k := range keys {
		sig, err := client.Sign(k, []byte("data"))
		if err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		public, err := ssh.ParsePublicKey(k.Blob)
		if err != nil {
			return err
		}
		if err := public.Verify([]byte("data"), sig); err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		fmt.Println("key", k.Format, ssh.FingerprintSHA256(public))
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if client.Add(agent.AddedKey{PrivateKey: private}) == nil {
		return errors.New("a key could be added")
	}
	if client.RemoveAll() == nil {
		return errors.New("the keys could be removed")
	}
	if client.Lock([]byte("x")) == nil {
		return errors.New("the agent could be locked")
	}
	return unknownRequest()
}

// unknownRequest sends a request that agents do not know. The agent must refuse it.
func unknownRequest() error {
	conn, err := net.Dial("unix", os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{0, 0, 0, 1, 99}); err != nil {
		return err
	}
	answer := make([]byte, 5)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if !bytes.Equal(answer, []byte{0, 0, 0, 1, 5}) { // SSH_AGENT_FAILURE
		return fmt.Errorf("an unknown request was answered by % x", answer)
	}
	return nil
}
