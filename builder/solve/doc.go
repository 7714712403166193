// Package solve walks a graph of operations and returns the snapshot of its target.
//
// Every vertex has two cache keys:
//
//   - The definition key is computed from the operation and the definition keys of its
//     inputs. It is known before any step has run. If the definition key of the target
//     is in the cache, the build ends without looking at the steps below the target.
//   - The content key is computed from the operation and the chainIDs of its inputs. It
//     is known when the inputs exist. If a step runs again and its result has the same
//     bytes, the steps after it are found by their content keys (early cut-off).
//
// Files of a build context have no definition. Both keys contain the digest of exactly
// the files that the operation reads. For a git checkout or a download, only the content
// key contains that digest. Its definition key contains the commit or the checksum, and
// if this key is in the cache, nothing is fetched.
//
// Vertices run in parallel, each once per build. A vertex can run as soon as the files of
// its inputs are complete. The inputs are packed and recorded in the cache while the next
// steps run. Packing computes their chainIDs. A vertex waits for these chainIDs only if
// early cut-off is possible, that is, if the cache has a record of the same operation on
// any inputs (its operation key). A step without such a record starts at once.
//
// An Executor runs the operations themselves.
package solve
