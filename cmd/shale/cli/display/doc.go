// Package display draws the progress of a build.
//
// A Display is the progress.Sink of one build. It converts the events to BuildKit's
// solve statuses, and BuildKit's progressui draws them. Users of docker and their
// scripts therefore see the live view, the plain text and the raw JSON that they know.
// The package adds the parts that progressui leaves to its caller. It accepts events
// from many goroutines without delaying them, and it prints a summary of the warnings.
// The build command prints the excerpt of the Dockerfile and the final ERROR line after
// Close.
package display
