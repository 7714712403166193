package git

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Commit is the result of resolving the Ref of a Spec.
type Commit struct {
	// Ref is the full name of the reference. It is "" if the commit was given by its
	// hash.
	Ref string
	// Object is the hash of the object that the reference names: a commit or an annotated
	// tag.
	Object string
	// Peeled is the commit of an annotated tag. It is "" if Object is a commit.
	Peeled string
}

var (
	defaultBranch = regexp.MustCompile(`(?m)^ref: (refs/heads/\S+)\tHEAD$`)
	headHash      = regexp.MustCompile(`(?m)^([0-9a-f]+)\tHEAD$`)
)

// Resolve returns the commit of s. The remote is asked only once for each reference. It
// returns an error if the commit does not match s.Checksum.
func (r *Repositories) Resolve(ctx context.Context, s Spec) (Commit, error) {
	if isHash(s.Ref) {
		if !strings.HasPrefix(s.Ref, s.Checksum) {
			return Commit{}, fmt.Errorf("expected checksum to match %s, got %s", s.Checksum, s.Ref)
		}
		return Commit{Object: s.Ref}, nil
	}
	if s.FetchByCommit {
		return byCommit(s)
	}
	c, err := r.resolved.Get(s.Remote+"\x00"+s.Ref, func() (Commit, error) { return r.ask(ctx, s) })
	if err != nil {
		return Commit{}, err
	}
	return c, checkSum(s, c)
}

func byCommit(s Spec) (Commit, error) {
	if s.Checksum == "" {
		return Commit{}, errors.New("fetch-by-commit requires a checksum or a commit SHA ref")
	}
	if !isHash(s.Checksum) {
		return Commit{}, fmt.Errorf("fetch-by-commit requires a full commit SHA checksum, got %q", s.Checksum)
	}
	c := Commit{Ref: s.Ref, Object: s.Checksum}
	if c.Ref != "" && !strings.HasPrefix(c.Ref, "refs/") {
		c.Ref = "refs/heads/" + c.Ref
	}
	return c, nil
}

func checkSum(s Spec, c Commit) error {
	if strings.HasPrefix(c.Object, s.Checksum) || c.Peeled != "" && strings.HasPrefix(c.Peeled, s.Checksum) {
		return nil
	}
	got := c.Object
	if c.Peeled != "" {
		got += " or " + c.Peeled
	}
	return fmt.Errorf("expected checksum to match %s, got %s", s.Checksum, got)
}

// ask asks the remote for s.Ref.
func (r *Repositories) ask(ctx context.Context, s Spec) (Commit, error) {
	g, release, err := r.remote(ctx, s)
	if err != nil {
		return Commit{}, err
	}
	defer release()
	if s.Ref == "" {
		return head(ctx, g, s)
	}
	ref := s.Ref
	out, err := g.run(ctx, "ls-remote", "origin", ref, ref+"^{}")
	if err != nil {
		return Commit{}, fmt.Errorf("ask %s for its references: %w", s.shown(), err)
	}
	c, ok := match(ref, string(out))
	if !ok {
		return Commit{}, fmt.Errorf("repository does not contain ref %s, output: %q", ref, out)
	}
	return c, nil
}

// head asks the remote for its default branch.
func head(ctx context.Context, g command, s Spec) (Commit, error) {
	out, err := g.run(ctx, "ls-remote", "--symref", "origin", "HEAD")
	if err != nil {
		return Commit{}, fmt.Errorf("find the default branch of %s: %w", s.shown(), err)
	}
	branch, hash := defaultBranch.FindSubmatch(out), headHash.FindSubmatch(out)
	if branch == nil || hash == nil || !isHash(string(hash[1])) {
		return Commit{}, fmt.Errorf("the repository %s has no default branch: name one, as in %s#BRANCH", s.shown(), s.shown())
	}
	c := Commit{Ref: string(branch[1]), Object: string(hash[1])}
	return c, checkRef(c.Ref)
}

// match finds ref in the output of ls-remote. A full reference name takes precedence over
// a branch, and a branch over a tag.
func match(ref, list string) (Commit, bool) {
	hashes := map[string]string{}
	for line := range strings.SplitSeq(list, "\n") {
		hash, name, ok := strings.Cut(line, "\t")
		if ok && isHash(hash) {
			hashes[name] = hash
		}
	}
	for _, name := range []string{
		"refs/" + strings.TrimPrefix(ref, "refs/"),
		"refs/heads/" + strings.TrimPrefix(ref, "refs/heads/"),
		"refs/tags/" + strings.TrimPrefix(ref, "refs/tags/"),
	} {
		if hash := hashes[name]; hash != "" {
			return Commit{Ref: name, Object: hash, Peeled: hashes[name+"^{}"]}, true
		}
	}
	return Commit{}, false
}

// Key returns an identifier of the files that Checkout writes for c.
func Key(s Spec, c Commit) string {
	at := c.Object
	if c.Peeled != "" && !s.KeepGitDir {
		at = c.Peeled // the files do not depend on the tag object
	}
	parts := []string{"git checkout 1", at, s.Subdir}
	if s.KeepGitDir {
		parts = append(parts, "keep", c.Ref, s.Remote)
	}
	if s.SkipSubmodules {
		parts = append(parts, "no submodules")
	}
	if s.CommitTimes {
		parts = append(parts, "commit times")
	}
	return strings.Join(parts, "\x00")
}
