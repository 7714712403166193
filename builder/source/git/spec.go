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

// Spec says which files of which repository are wanted.
type Spec struct {
	// Remote is the address of the repository, without credentials.
	Remote string
	// Ref is a branch, a tag, a full reference name or a commit; "" is the
	// remote's default branch.
	Ref string
	// Subdir is the directory whose content is wanted, clean and relative,
	// "" for the root.
	Subdir string
	// Checksum is the beginning of the hash that Ref must have, "" for any.
	Checksum string
	// FetchByCommit takes Checksum for the commit without asking the remote
	// what Ref is.
	FetchByCommit bool
	// KeepGitDir keeps the .git directory, if Subdir is "".
	KeepGitDir bool
	// SkipSubmodules leaves the directories of submodules empty.
	SkipSubmodules bool
	// CommitTimes gives all files the time of the commit.
	CommitTimes bool
	// HeaderSecret and TokenSecret are the IDs of secrets that a server may
	// want, "" for none.
	HeaderSecret, TokenSecret string
	// Agent is the ID of the ssh agent to use, "" for none.
	Agent string
	// KnownHosts are lines of known_hosts(5) that were found out for this
	// repository.
	KnownHosts string

	// user are the credentials of the address.
	user *url.Userinfo
	// scheme and host are those of Remote.
	scheme, host string
}

// schemes are the transports that git may use.
var schemes = map[string]bool{"http": true, "https": true, "ssh": true, "git": true}

var hexDigits = regexp.MustCompile(`^[a-fA-F0-9]+$`)

// ParseSource reads a source operation of the front end.
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
			// Whether git's hints are printed: they are not.
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

// parseURL reads an address; without a transport it is taken for https, as
// the front end does.
func parseURL(s string) (*gitutil.GitURL, error) {
	if !gitutil.IsGitTransport(s) {
		if strings.Contains(s, "://") {
			return nil, errors.New("the address of the git repository has a transport other than https, http, ssh and git")
		}
		s = "https://" + s
	}
	u, err := gitutil.ParseURL(s)
	if err != nil {
		return nil, errors.New("the address of the git repository is malformed") // the error would quote credentials
	}
	return u, nil
}

// setRemote takes the credentials out of the address: git would show them to
// whoever lists processes, and keep them in .git/config.
func (s *Spec) setRemote(u *gitutil.GitURL) error {
	s.scheme, s.host = strings.ToLower(u.Scheme), u.Host
	if !schemes[s.scheme] {
		return fmt.Errorf("git cannot be used over %q", u.Scheme)
	}
	if u.Host == "" || strings.HasPrefix(u.Host, "-") {
		return fmt.Errorf("git repository on the host %q", u.Host)
	}
	if s.scheme == "ssh" && !strings.Contains(u.Remote, "://") {
		s.Remote = u.Remote // user@host:path; there is no place for a password
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
		// There would be nothing that it belongs to. (BuildKit agrees.)
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

// checkRef refuses what git could take for an option or for more than one
// reference.
func checkRef(ref string) error {
	if strings.HasPrefix(ref, "-") || strings.ContainsAny(ref, " ~^:?*[\\\x7f") || strings.Contains(ref, "..") ||
		strings.ContainsFunc(ref, func(r rune) bool { return r < ' ' }) {
		return fmt.Errorf("invalid git ref %q", ref)
	}
	return nil
}

// isHash tells whether s is a whole object name of a SHA-1 or SHA-256
// repository.
func isHash(s string) bool { return gitutil.IsCommitSHA(s) }

// shown is the address for messages.
func (s *Spec) shown() string { return s.Remote }
