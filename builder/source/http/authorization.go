package http

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Prefixes of secret IDs. The host name follows.
const (
	headerSecret = "HTTP_AUTH_HEADER_" //nolint:gosec // the name of one
	tokenSecret  = "HTTP_AUTH_TOKEN_"  //nolint:gosec // the name of one
)

// Authorize sets the Authorization header for rawURL if a secret is available. If
// o.AuthSecret is set, that secret must exist, and it is the whole header. Otherwise a
// token or a whole header for the host is used. secret returns a secret by its ID and
// reports whether it exists.
func (o *Options) Authorize(rawURL string, secret func(id string) ([]byte, bool, error)) error {
	u, err := url.Parse(rawURL)
	if err != nil || secret == nil {
		return nil //nolint:nilerr // Fetch will tell
	}
	value, err := authorization(u.Hostname(), o.AuthSecret, secret)
	if err != nil || value == "" {
		return err
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("the secret for " + u.Hostname() + " has a line break or control character in it")
	}
	if o.Header == nil {
		o.Header = http.Header{}
	}
	o.Header.Set("Authorization", value)
	return nil
}

func authorization(host, id string, secret func(id string) ([]byte, bool, error)) (string, error) {
	if id != "" {
		data, ok, err := secret(id)
		if err == nil && !ok {
			err = errors.New("not found")
		}
		if err != nil {
			return "", fmt.Errorf("read secret %s: %w", id, err)
		}
		return trim(data), nil
	}
	for _, s := range []struct{ id, before string }{{tokenSecret + host, "Bearer "}, {headerSecret + host, ""}} {
		data, ok, err := secret(s.id)
		if err != nil {
			return "", fmt.Errorf("read secret %s: %w", s.id, err)
		}
		if ok {
			return s.before + trim(data), nil
		}
	}
	return "", nil
}

func trim(data []byte) string { return strings.TrimRight(string(data), "\r\n") }
