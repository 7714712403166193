// Package git brings commits of git repositories: contexts, named contexts and
// ADD of a repository.
//
// A Spec says what is wanted. Resolve asks the remote what a branch or tag means
// right now, and gives a Commit, which names the content for good; Checkout
// makes its files. Between the two stands a cache of bare repositories, one for
// each remote, so that a commit that was fetched once is not fetched again. The
// cache is bounded, is shared by builds that run side by side, and what a killed
// build leaves in it is cleaned up by the next.
//
// The work is done by the git program. It reads no configuration but ours,
// runs no hook, filter or credential helper, and speaks http(s), ssh and git
// only. Neither a repository nor the text of a URL can change that. Secrets are
// handed to it in its environment: they stand in no argument, no file and no
// message. Where secrets and ssh agents come from is left to the caller.
package git
