// Package frontend turns a Dockerfile into build graphs.
//
// It runs BuildKit's own Dockerfile front end in process, against a gateway of
// ours instead of a daemon, so the language is BuildKit's to the last flag.
//
// Open looks at what the user named: it finds and reads the Dockerfile, spools
// a context that comes from standard input and gives every local directory a
// name. The resulting Inputs tell the source of local files where those names
// lead. Build then runs the front end and returns, per platform, a checked
// llb.Graph and an image config.
//
// Pulling, scanning contexts and executing graphs are left to others; what the
// front end itself needs of them stands in Services.
package frontend
