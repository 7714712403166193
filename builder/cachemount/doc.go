// Package cachemount manages the directories of RUN --mount=type=cache.
//
// A cache mount is identified by its ID and by the seed that its directory starts with.
// It is kept between builds. Each cache mount has one or more directories, its slots.
// Shared and locked steps use slot 0, with a shared or an exclusive lock. A private step
// uses the first slot that is not locked. The locks are flock(2) locks on a file next to
// the data, so they also apply between processes and end with them.
//
// Pack and Unpack convert the content of a cache mount to and from a tar, for transfer to
// other machines. The transfer itself is not part of this package.
package cachemount
