// Package builder turns a Dockerfile and its context into an image.
//
// A build passes through the sub-packages in this order:
//
//   - Package frontend reads the Dockerfile and returns a graph of operations, see
//     package llb.
//   - Package solve walks the graph in parallel and looks up each operation in the cache.
//   - Packages source, fileop and exec carry out one operation each.
//   - Package export writes the result.
//
// This package joins them: it turns Options into a Result. It also decides where the
// index of cache keys is stored on disk. Packages overlay, runtime and storage provide
// mounts, containers, layers and registries.
package builder
