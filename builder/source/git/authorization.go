package git

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// withAuthorization adds an Authorization header to c. The value comes from the secrets
// of s, or from the credentials in its address. Redirects are disabled, because git would
// also send the header to the host that it is redirected to.
func (r *Repositories) withAuthorization(c command, s Spec) (command, error) {
	if s.scheme != "http" && s.scheme != "https" {
		return c, nil
	}
	value, secret, err := r.authorization(s)
	if err != nil || value == "" {
		return c, err
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return c, errors.New("the secret for the git repository has a line break or control character in it")
	}
	c.secrets = append(c.secrets, value, secret)
	return c.with(
		config{"http." + scope(s.Remote) + ".extraHeader", "Authorization: " + value},
		config{"http.followRedirects", "false"},
	), nil
}

// authorization returns the value of the header and the secret in it. A secret for the
// host takes precedence over a secret for all hosts.
func (r *Repositories) authorization(s Spec) (value, secret string, err error) {
	for _, id := range []struct {
		name  string
		token bool
	}{
		{hostSecret(s.HeaderSecret, s.host), false},
		{hostSecret(s.TokenSecret, s.host), true},
		{s.HeaderSecret, false},
		{s.TokenSecret, true},
	} {
		if id.name == "" || r.opts.Secret == nil {
			continue
		}
		data, ok, err := r.opts.Secret(id.name)
		if err != nil {
			return "", "", fmt.Errorf("read secret %s: %w", id.name, err)
		}
		if !ok {
			continue
		}
		text := strings.TrimRight(string(data), "\r\n")
		if text == "" {
			return "", "", fmt.Errorf("secret %s is empty", id.name)
		}
		if id.token {
			return basic("x-access-token", text), text, nil
		}
		return text, text, nil
	}
	return fromAddress(s.user)
}

func hostSecret(id, host string) string {
	if id == "" {
		return ""
	}
	return id + "." + host
}

func fromAddress(user *url.Userinfo) (value, secret string, err error) {
	if user == nil {
		return "", "", nil
	}
	password, _ := user.Password()
	secret = password
	if secret == "" {
		secret = user.Username()
	}
	if secret == "" {
		return "", "", nil
	}
	return basic(user.Username(), password), secret, nil
}

func basic(user, password string) string {
	return "basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// scope returns the URL prefix for which git sends the header. This is the repository
// itself. On GitHub it is all repositories, so that private submodules can be fetched
// with the same token.
func scope(remote string) string {
	for _, all := range []string{"https://github.com/", "https://www.github.com/"} {
		if strings.HasPrefix(remote, all) {
			return all
		}
	}
	return remote
}
