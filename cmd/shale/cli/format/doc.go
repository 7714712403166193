// Package format writes the results of commands the way docker writes its own:
// as a table, through a Go template, or as JSON.
//
// A Listing is a command's table: the columns it shows by default and the
// heading of every field a template may name. A row is a struct of printable
// fields; the same row feeds the table, the template and the JSON, so that
// what can be seen can also be scripted. What the rows say is for the commands.
package format
