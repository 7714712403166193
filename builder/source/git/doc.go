// Package git provides commits of git repositories: for build contexts, for named
// contexts and for ADD of a repository.
//
// A Spec names a repository and the files that are needed of it. Resolve asks the remote
// for the commit of a branch or a tag and returns a Commit, which identifies the content
// permanently. Checkout writes its files. A cache of bare repositories, one for each
// remote, ensures that a commit is fetched only once. The cache has a size limit and can
// be used by parallel builds. If a build is killed, the next build removes the files that
// it left in the cache.
//
// The git program does the work. It reads no configuration except the one that this
// package sets. It runs no hooks, filters or credential helpers, and uses only the
// transports http(s), ssh and git. Neither a repository nor the text of a URL can change
// that. Secrets are passed in its environment, so they never appear in an argument, a
// file or a message. The caller provides the secrets and the ssh agents.
package git
