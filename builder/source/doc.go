// Package source finds what a graph starts from: images, directories and
// downloads.
//
// Images answers the front end's questions about base images and later brings
// their layers into the store; it asks the local store first, and a registry
// only for what is not there. Sources hands every source vertex to the kind it
// is of. The files themselves are the business of the sub-packages local and
// http, and of package storage/registry.
package source
