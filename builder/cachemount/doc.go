// Package cachemount keeps the directories behind RUN --mount=type=cache.
//
// A cache mount is known by its ID and by what seeded it, and lives on between
// builds. Its directories are slots: shared and locked use are of slot 0, under
// a shared or an exclusive lock; private use takes the first slot that nobody
// has. Locks are flock(2) locks on a file beside the data, so they hold between
// processes and end with them.
//
// Pack and Unpack carry the content of a mount to other machines, as a tar. Where
// it is kept there is not this package's business.
package cachemount
