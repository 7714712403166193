package git

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/gitutil"
)

// Spec names a repository and the files that are needed of it.
type Spec struct {
	// Remote is the address of the repository, without credentials.
	Remote string
	// Ref is a branch, a tag, a full reference name or a commit. It is "" for the default
	// branch of the remote.
	Ref string
	// Subdir is the directory whose content is needed, clean and relative. It is "" for
	// the root of the repository.
	Subdir string
	// Checksum is a prefix of the hash that Ref must have. It is "" for any hash.
	Checksum string
	// FetchByCommit uses Checksum as the commit without asking the remote for Ref.
	FetchByCommit bool
	// KeepGitDir keeps the .git directory. It requires that Subdir is "".
	KeepGitDir bool
	// SkipSubmodules leaves the directories of submodules empty.
	SkipSubmodules bool
	// CommitTimes sets the modification time of all files to the time of the commit.
	CommitTimes bool
	// HeaderSecret and TokenSecret are the IDs of secrets for the server, or "".
	HeaderSecret, TokenSecret string
	// Agent is the ID of the ssh agent, or "" for none.
	Agent string
	// KnownHosts are known_hosts(5) lines that were scanned for this repository.
	KnownHosts string

	// user holds the credentials of the address.
	user *url.Userinfo
	// scheme and host are those of Remote.
	scheme, host string
}

// schemes are the transports that git may use.
var schemes = map[string]bool{"http": true, "https": true, "ssh": true, "git": true}

var hexDigits = regexp.MustCompile(`^[a-fA-F0-9]+$`)

// ParseSource parses a source operation of the front end. It returns an error for unknown
// attributes and for values that git could mistake for options.
func ParseSource(op *pb.SourceOp) (Spec, error) {
	id, err := parseURL(strings.TrimPrefix(op.GetIdentifier(), "git://"))
	if err != nil {
		return Spec{}, err
	}
	s := Spec{}
	if id.Opts != nil {
		s.Ref, s.Subdir = id.Opts.Ref, id.Opts.Subdir
	}
	remote := id
	for key, value := range op.GetAttrs() {
		switch key {
		case pb.AttrFullRemoteURL:
			remote, err = parseURL(value)
		case pb.AttrKeepGitDir:
			s.KeepGitDir = value == "true"
		case pb.AttrAuthHeaderSecret:
			s.HeaderSecret = value
		case pb.AttrAuthTokenSecret:
			s.TokenSecret = value
		case pb.AttrKnownSSHHosts:
			s.KnownHosts = value
		case pb.AttrMountSSHSock:
			s.Agent = value
		case pb.AttrGitChecksum:
			s.Checksum = value
		case pb.AttrGitSkipSubmodules:
			s.SkipSubmodules = value == "true"
		case pb.AttrGitMTime:
			s.CommitTimes, err = commitTimes(value)
		case pb.AttrGitFetchByCommit:
			s.FetchByCommit = value == "true"
		case pb.AttrGitAdvice:
			// It controls whether git prints its hints. They are never printed.
		default:
			err = errors.New("unknown attribute")
		}
		if err != nil {
			return Spec{}, fmt.Errorf("attribute %s of a git source: %w", key, err)
		}
	}
	if err := s.setRemote(remote); err != nil {
		return Spec{}, err
	}
	return s, s.check()
}

func commitTimes(value string) (bool, error) {
	switch value {
	case "", "checkout":
		return false, nil
	case "commit":
		return true, nil
	}
	return false, fmt.Errorf("%q is neither checkout nor commit", value)
}

// parseURL parses an address. An address without a transport is used with https, as in
// the front end.
func parseURL(s string) (*gitutil.GitURL, error) {
	if !gitutil.IsGitTransport(s) {
		if strings.Contains(s, "://") {
			return nil, errors.New("the address of the git repository has a transport other than https, http, ssh and git")
		}
		s = "https://" + s
	}
	u, err := gitutil.ParseURL(s)
	if err != nil {
		return nil, errors.New("the address of the git repository is malformed") // gitutil's error would contain credentials
	}
	return u, nil
}

// setRemote removes the credentials from the address. Otherwise git would show them in
// the list of processes and store them in .git/config.
func (s *Spec) setRemote(u *gitutil.GitURL) error {
	s.scheme, s.host = strings.ToLower(u.Scheme), u.Host
	if !schemes[s.scheme] {
		return fmt.Errorf("git cannot be used over %q", u.Scheme)
	}
	if u.Host == "" || strings.HasPrefix(u.Host, "-") {
		return fmt.Errorf("git repository on the host %q", u.Host)
	}
	if s.scheme == "ssh" && !strings.Contains(u.Remote, "://") {
		s.Remote = u.Remote // user@host:path; this form cannot have a password
		return nil
	}
	at := url.URL{Scheme: s.scheme, Host: u.Host, Path: u.Path}
	if s.scheme == "ssh" && u.User != nil {
		at.User = url.User(u.User.Username())
	}
	if s.scheme == "http" || s.scheme == "https" {
		s.user = u.User
	}
	s.Remote = at.String()
	return nil
}

func (s *Spec) check() error {
	s.Subdir = strings.TrimPrefix(path.Clean("/"+s.Subdir), "/")
	if s.Subdir != "" {
		// A part of the checkout has no .git directory. BuildKit does the same.
		s.KeepGitDir = false
	}
	if err := checkRef(s.Ref); err != nil {
		return err
	}
	if s.Checksum != "" && !hexDigits.MatchString(s.Checksum) {
		return fmt.Errorf("invalid checksum %s for Git URL, expected hex commit hash", s.Checksum)
	}
	for _, text := range []string{s.Remote, s.Subdir, s.KnownHosts} {
		if strings.ContainsRune(text, 0) {
			return errors.New("NUL in a git source")
		}
	}
	if strings.ContainsAny(s.Remote, "\r\n") {
		return errors.New("line break in the address of a git repository")
	}
	return nil
}

// checkRef rejects names that git could mistake for an option or for more than one
// reference.
func checkRef(ref string) error {
	if strings.HasPrefix(ref, "-") || strings.ContainsAny(ref, " ~^:?*[\\\x7f") || strings.Contains(ref, "..") ||
		strings.ContainsFunc(ref, func(r rune) bool { return r < ' ' }) {
		return fmt.Errorf("invalid git ref %q", ref)
	}
	return nil
}

// isHash reports whether s is a complete object name of a SHA-1 or SHA-256 repository.
func isHash(s string) bool { return gitutil.IsCommitSHA(s) }

// shown returns the address for messages.
func (s *Spec) shown() string { return s.Remote }
