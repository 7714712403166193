// Package solve walks a graph of operations and yields the snapshot of its
// target.
//
// Every vertex has two cache keys. The definition key follows from the
// operation and the definition keys of its inputs, and so is known before
// anything has run: a hit at the target ends the build without looking at the
// steps below it. The content key follows from the operation and the chainIDs
// of its inputs, and is known once those exist: when a step was run again and
// gave the same bytes, the steps after it are found by it (early cut-off).
// Files of a build context have no definition; wherever they are read, the
// digest of exactly what is read stands in both keys. So it does for a checkout
// or a download, but only in the content key: the definition key has the commit
// or the checksum, and when it is found nothing is fetched.
//
// Vertices run in parallel as soon as their inputs exist, each once per build.
// Inputs exist when their files are complete: packing them, which tells their
// chainIDs, and recording them goes on beside the steps that build on them. Where
// early cut-off could follow, the chainIDs are waited for: that is where the index
// has the operation key of the vertex, what it does whatever on. A step that was
// never carried out starts at once.
//
// What a vertex does when it has to run is left to an Executor.
package solve
