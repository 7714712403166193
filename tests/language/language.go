// Command language counts words in the comments of Go files:
//
//	language [-files] [DIRECTORY]
//	language -check [DIRECTORY]
//
// The first form prints a line for each directory, or for each file, with the number of
// words and, per 1,000 of them, the number of words that distinguish plain English from
// this project's old dialect; the last line is the sum. Directives, test data and the C code
// of cgo are left out. The second form prints the turns of phrase that readers stumbled
// over, in comments, README.md and docs, and fails if there are any.
package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	files := flag.Bool("files", false, "a line for each file")
	check := flag.Bool("check", false, "print turns of phrase to be avoided")
	flag.Parse()
	root := "."
	if flag.NArg() > 0 {
		root = flag.Arg(0)
	}
	run := func() error { return report(root, *files) }
	if *check {
		run = func() error { return avoid(root) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "language:", err)
		os.Exit(1)
	}
}

// comment is a comment of a file.
type comment struct {
	File string
	Line int
	Text string
}

// words that are counted, as regular expressions.
var words = []struct{ name, pattern string }{
	{"what", `what`},
	{"who", `who|whose|whom|whoever`},
	{"nobody", `nobody|somebody|nothing|anybody|everybody`},
	{"tells", `tells?|told`},
	{"had", `had`},
	{"if", `if`},
	{"must", `must|should`},
	{"returns", `returns?`},
}

var word = regexp.MustCompile(`[A-Za-z][A-Za-z'’-]*`)

// count is how often each of words stands in a text, and its number of words.
type count struct {
	all  int
	each [len("12345678")]int
}

func (c *count) add(text string) {
	for _, w := range word.FindAllString(text, -1) {
		c.all++
		for i := range words {
			if patterns[i].MatchString(w) {
				c.each[i]++
			}
		}
	}
}

var patterns = func() (list []*regexp.Regexp) {
	for _, w := range words {
		list = append(list, regexp.MustCompile(`(?i)^(`+w.pattern+`)$`))
	}
	return list
}()

func (c *count) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%6d", c.all)
	for i := range words {
		fmt.Fprintf(&b, " %7.1f", 1000*float64(c.each[i])/float64(max(c.all, 1)))
	}
	return b.String()
}

func report(root string, files bool) error {
	comments, err := commentsOf(root)
	if err != nil {
		return err
	}
	by := map[string]*count{}
	sum := &count{}
	for _, c := range comments {
		name := c.File
		if !files {
			name = filepath.Dir(name)
		}
		if by[name] == nil {
			by[name] = &count{}
		}
		by[name].add(c.Text)
		sum.add(c.Text)
	}
	fmt.Printf("%6s", "words")
	for _, w := range words {
		fmt.Printf(" %7s", w.name)
	}
	fmt.Println()
	names := make([]string, 0, len(by))
	for name := range by {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Println(by[name], "", name)
	}
	fmt.Println(sum, "", "all")
	return nil
}

// commentsOf returns the comments of all Go files below root.
func commentsOf(root string) (list []comment, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, group := range file.Comments {
			if isC(file, group) {
				continue
			}
			list = append(list, comment{File: path, Line: set.Position(group.Pos()).Line, Text: group.Text()})
		}
		return nil
	})
	return list, err
}

// isC reports whether a comment is the C code before import "C".
func isC(file *ast.File, group *ast.CommentGroup) bool {
	for _, decl := range file.Decls {
		if gen, ok := decl.(*ast.GenDecl); ok && gen.Doc == group && gen.Tok == token.IMPORT {
			return true
		}
	}
	return false
}
