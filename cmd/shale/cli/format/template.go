package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"
)

// functions are the template functions that docker documents for --format.
var functions = template.FuncMap{
	"json":     func(v any) (string, error) { return JSON(v) },
	"split":    strings.Split,
	"join":     func(list []string, sep string) string { return strings.Join(list, sep) },
	"lower":    strings.ToLower,
	"upper":    strings.ToUpper,
	"title":    title,
	"pad":      pad,
	"truncate": truncate,
	"println":  fmt.Sprintln,
}

// JSON returns v as JSON in one line. It does not escape <, > and &.
func JSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("encode JSON: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// IndentedJSON writes v as JSON with the indentation of docker inspect.
func IndentedJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "    ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// Parse parses a template from the command line. In the template, \t and \n are a tab
// and a line break, as in docker.
func Parse(text string) (*template.Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("format").Funcs(functions).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse --format: %w", trimTemplateName(err))
	}
	return t, nil
}

// Execute applies the template t to v and writes the result and a line break.
func Execute(w io.Writer, t *template.Template, v any) error {
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return fmt.Errorf("apply --format: %w", trimTemplateName(err))
	}
	b.WriteByte('\n')
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// templateError is an error of a template without the prefix that text/template adds.
type templateError struct{ err error }

func (e templateError) Error() string {
	return strings.TrimPrefix(e.err.Error(), "template: ")
}

func (e templateError) Unwrap() error { return e.err }

func trimTemplateName(err error) error { return templateError{err} }

func title(s string) string {
	r, size := utf8.DecodeRuneInString(s)
	if size == 0 {
		return s
	}
	return string(unicode.ToTitle(r)) + s[size:]
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", max(0, before)) + s + strings.Repeat(" ", max(0, after))
}

func truncate(s string, n int) string {
	runes := []rune(s)
	if n < 0 || len(runes) <= n {
		return s
	}
	return string(runes[:n])
}

// Ellipsis returns s with at most n characters. If s is longer, the last character is
// an ellipsis.
func Ellipsis(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n || n < 1 {
		return s
	}
	return string(runes[:n-1]) + "…"
}
