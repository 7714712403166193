// Package frontend turns a Dockerfile into build graphs.
//
// It runs BuildKit's own Dockerfile front end in this process. The package provides the
// gateway that the front end expects, so no daemon is needed and every language feature
// is BuildKit's.
//
// Open finds and reads the Dockerfile, spools a context from standard input, and gives
// each local directory a name. The resulting Inputs map these names to directories, for
// the source of local files. Build then runs the front end. For each platform it returns
// a checked llb.Graph and an image config.
//
// Services are the interfaces through which the front end pulls images, fetches contexts
// and executes graphs. Other packages implement them.
package frontend
