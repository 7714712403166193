// Package builder turns a Dockerfile and its context into an image.
//
// A build flows through its sub-packages in this order: frontend reads the
// Dockerfile and yields a graph (llb) of operations; solve walks the graph in
// parallel, asking its cache first; source, fileop and exec carry out one
// operation each; export writes the result. This package joins them: it turns
// Options into a Result and owns the cache keys' place on disk. Mounts,
// containers, layers and registries are left to the packages overlay, runtime
// and storage.
package builder
