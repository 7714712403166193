// Package format writes the results of commands as docker does: as a table, through a
// Go template, or as JSON.
//
// A Listing describes the table of a command: its default columns, and the heading of
// every field that a template may name. A row is a struct of printable fields. The
// table, the template and the JSON use the same row, so a script can read everything
// that the table shows. The commands set the content of the rows.
package format
