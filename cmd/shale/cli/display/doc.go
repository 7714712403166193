// Package display draws the progress of a build.
//
// A Display is the progress.Sink of one build. It turns the events into
// BuildKit's solve statuses and leaves the drawing to BuildKit's progressui,
// so that the live view, the plain text and the raw JSON are the ones docker's
// users and their scripts know. It adds what progressui leaves to its caller:
// taking events from many goroutines without holding them up, and the summary
// of the warnings. The excerpt of the Dockerfile and the final ERROR line are
// the business of the build command, after Close.
package display
