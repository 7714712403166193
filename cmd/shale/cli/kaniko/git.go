package kaniko

import (
	"crypto/sha1" //nolint:gosec // how long its hashes are
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/shale-build/shale/builder/secrets"
)

// gitOptions holds the values of --git. Each value is KEY=VALUE. Values may be joined
// by commas or given separately.
type gitOptions struct {
	branch      string
	submodules  bool
	insecureTLS bool
	given       []string
}

// String implements pflag.Value.
func (g *gitOptions) String() string { return strings.Join(g.given, ",") }

// Type implements pflag.Value.
func (g *gitOptions) Type() string { return "options" }

// Set implements pflag.Value.
func (g *gitOptions) Set(value string) error {
	for part := range strings.SplitSeq(value, ",") {
		key, v, found := strings.Cut(part, "=")
		if !found {
			return fmt.Errorf("%q is not of the form KEY=VALUE", part)
		}
		var err error
		switch key {
		case "branch":
			g.branch = v
		case "recurse-submodules":
			g.submodules, err = strconv.ParseBool(v)
		case "insecure-skip-tls":
			g.insecureTLS, err = strconv.ParseBool(v)
		case "single-branch":
			// shale always fetches a single commit.
			_, err = strconv.ParseBool(v)
		case "depth":
			_, err = strconv.Atoi(v)
		}
		if err != nil {
			return fmt.Errorf("%s: %q is no such value", key, v)
		}
		g.given = append(g.given, part)
	}
	return nil
}

// gitContext converts rest, the part after "git://" of
// git://HOST/REPOSITORY[#REF[#COMMIT]], to an address in the form of the builder. It
// also returns the login for the server, if the environment contains one.
func (c *Command) gitContext(rest string) (address string, login []secrets.Source, err error) {
	parts := strings.Split(rest, "#")
	if len(parts) > 3 {
		return "", nil, fmt.Errorf("git context %q: want git://HOST/REPOSITORY[#REF[#COMMIT]]", "git://"+rest)
	}
	scheme := "https"
	if v, _ := c.env("GIT_PULL_METHOD"); v == "http" {
		scheme = v
	}
	u, err := url.Parse(scheme + "://" + parts[0])
	if err != nil || u.Host == "" {
		return "", nil, fmt.Errorf("git context %q: want git://HOST/REPOSITORY[#REF[#COMMIT]]", "git://"+withoutUser(rest))
	}
	if !strings.HasSuffix(u.Path, ".git") {
		u.Path = strings.TrimSuffix(u.Path, "/") + ".git"
	}
	query := url.Values{"submodules": {strconv.FormatBool(c.git.submodules)}}
	ref := gitRef(parts[1:], c.git.branch)
	if ref != "" {
		query.Set("ref", ref)
	}
	if c.subPath != "" {
		query.Set("subdir", c.subPath)
	}
	u.RawQuery = query.Encode()
	return u.String(), c.gitLogin(u.Host), nil
}

// gitRef returns the reference to check out. A named commit takes precedence over the
// branch of --git. The branch takes precedence over any other named reference.
func gitRef(named []string, branch string) string {
	switch {
	case len(named) == 2:
		return named[1]
	case len(named) == 1 && (branch == "" || isCommit(named[0])):
		return named[0]
	}
	return branch
}

// isCommit reports whether ref is the complete hash of a commit.
func isCommit(ref string) bool {
	_, err := hex.DecodeString(ref)
	return err == nil && (len(ref) == sha1.Size*2 || len(ref) == sha256.Size*2)
}

func withoutUser(address string) string {
	if _, after, ok := strings.Cut(address, "@"); ok {
		return after
	}
	return address
}

// gitLogin returns the login for git in the environment, or nil if there is none. It
// must be used for the host of the context only.
func (c *Command) gitLogin(host string) []secrets.Source {
	user, _ := c.env("GIT_USERNAME")
	password, _ := c.env("GIT_PASSWORD")
	if token, _ := c.env("GIT_TOKEN"); token != "" {
		user, password = token, ""
	}
	if user == "" && password == "" {
		return nil
	}
	value := "basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	return []secrets.Source{{ID: "GIT_AUTH_HEADER." + host, Value: value}}
}
