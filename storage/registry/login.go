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

// Login checks the credentials with the registry. If the registry accepts them, Login
// stores them in auth.json or with the configured credential helper. The error wraps
// ErrUnauthorized if the registry rejects them.
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

// LoggedIn returns the user name that is stored for a registry, or "" if there is none.
func (c *Client) LoggedIn(registry string) (string, error) {
	creds, err := config.GetCredentials(c.authSystem(), authKey(registry))
	if err != nil {
		return "", fmt.Errorf("read login of %s: %w", registry, err)
	}
	return creds.Username, nil
}

// Logout removes the stored credentials of a registry. The error wraps ErrNotFound if
// there are none.
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

// LogoutAll removes all stored credentials.
func (c *Client) LogoutAll() error {
	if err := config.RemoveAllAuthentication(c.authSystem()); err != nil {
		return fmt.Errorf("log out of all registries: %w", err)
	}
	return nil
}

// authSystem stores credentials in the user's configuration directory if there is no
// runtime directory. The default then is a file below /run that belongs to root. The
// configuration directory is searched by every reader of credentials, too.
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

// authKey returns registry without a scheme and a trailing slash, which users may paste
// with the name.
func authKey(registry string) string {
	for _, scheme := range []string{"https://", "http://"} {
		registry = strings.TrimPrefix(registry, scheme)
	}
	return strings.TrimRight(registry, "/")
}
