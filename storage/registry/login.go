package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/types"
)

// Login asks the registry whether it accepts the credentials and remembers them
// if so, in auth.json or with the credential helper that is configured.
func (c *Client) Login(ctx context.Context, login Login) error {
	key := authKey(login.Registry)
	if key == "" || login.Username == "" {
		return errors.New("log in: registry or user name is missing")
	}
	host, _, _ := strings.Cut(key, "/")
	sys := c.authSystem()
	if err := docker.CheckAuth(ctx, sys, login.Username, login.Password, host); err != nil {
		return explainLogin(host, err)
	}
	if _, err := config.SetCredentials(sys, key, login.Username, login.Password); err != nil {
		return fmt.Errorf("remember login of %s: %w", key, err)
	}
	return nil
}

func explainLogin(host string, err error) error {
	text := err.Error()
	switch {
	case isUnauthorized(err, text):
		return fmt.Errorf("log in to %s: %w: user name or password is wrong: %w", host, ErrUnauthorized, err)
	case isPlainHTTP(text):
		return fmt.Errorf("log in to %s: it speaks plain HTTP: use --tls-verify=false: %w", host, err)
	}
	return fmt.Errorf("log in to %s: %w", host, err)
}

// LoggedIn returns the user name that is remembered for a registry, "" for none.
func (c *Client) LoggedIn(registry string) (string, error) {
	creds, err := config.GetCredentials(c.authSystem(), authKey(registry))
	if err != nil {
		return "", fmt.Errorf("read login of %s: %w", registry, err)
	}
	return creds.Username, nil
}

// Logout forgets the login of a registry. ErrNotFound says that there is none.
func (c *Client) Logout(registry string) error {
	err := config.RemoveAuthentication(c.authSystem(), authKey(registry))
	if errors.Is(err, config.ErrNotLoggedIn) {
		return fmt.Errorf("log out of %s: %w: not logged in", registry, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("log out of %s: %w", registry, err)
	}
	return nil
}

// LogoutAll forgets all logins.
func (c *Client) LogoutAll() error {
	if err := config.RemoveAllAuthentication(c.authSystem()); err != nil {
		return fmt.Errorf("log out of all registries: %w", err)
	}
	return nil
}

// authSystem keeps logins in the user's configuration directory when there is no
// runtime directory: the place below /run that is used then is root's. Reading
// looks there as well.
func (c *Client) authSystem() *types.SystemContext {
	sys := c.system()
	if sys.AuthFilePath != "" || os.Getenv("XDG_RUNTIME_DIR") != "" || os.Geteuid() == 0 {
		return sys
	}
	if dir, err := os.UserConfigDir(); err == nil {
		sys.AuthFilePath = filepath.Join(dir, "containers", "auth.json")
	}
	return sys
}

// authKey takes what people paste: a scheme and a trailing slash are no part of
// the name of a registry.
func authKey(registry string) string {
	for _, scheme := range []string{"https://", "http://"} {
		registry = strings.TrimPrefix(registry, scheme)
	}
	return strings.TrimRight(registry, "/")
}
