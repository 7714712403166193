package conformance

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// node is an inode of a flattened file system.
type node struct {
	kind     byte
	mode     int64
	uid, gid int
	content  string // of a file, as returned by show
	link     string
	major    int64
	minor    int64
	xattrs   map[string]string
	mtime    time.Time
	layer    int
}

// tree maps absolute paths to inodes. Hard links share a node.
type tree map[string]*node

// flattener applies layers in order. The result is the file system that a container sees.
type flattener struct {
	tree  tree
	layer int
	// show returns the text for a file's content.
	show func(name string, content []byte) string
}

const maxShown = 300

// showContent returns short text as a quoted string. For other content, it returns size
// and digest.
func showContent(_ string, content []byte) string {
	if len(content) <= maxShown && isText(content) {
		return fmt.Sprintf("%q", content)
	}
	return fmt.Sprintf("%d %s", len(content), digest.FromBytes(content))
}

func isText(content []byte) bool {
	for _, b := range string(content) {
		if b == '\ufffd' || b < ' ' && b != '\n' && b != '\t' && b != '\r' {
			return false
		}
	}
	return true
}

// apply applies a layer and returns a line for each of its entries.
func (f *flattener) apply(r io.Reader) ([]string, error) {
	f.layer++
	var listed []string
	reader := tar.NewReader(r)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return listed, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read layer: %w", err)
		}
		name := path.Join("/", header.Name) //nolint:gosec // the key of a map
		if err := f.entry(name, header, reader); err != nil {
			return nil, fmt.Errorf("read layer: %s: %w", name, err)
		}
		if n := f.tree[name]; n != nil && n.layer == f.layer {
			listed = append(listed, name+" "+n.String())
		} else {
			listed = append(listed, name)
		}
	}
}

func (f *flattener) entry(name string, header *tar.Header, content io.Reader) error {
	dir, base := path.Split(name)
	if base == ".wh..wh..opq" {
		f.remove(path.Clean(dir), false)
		return nil
	}
	if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
		f.remove(path.Join(dir, hidden), true)
		return nil
	}
	n, err := f.node(name, header, content)
	if err != nil {
		return err
	}
	if old := f.tree[name]; old != nil && old.kind == tar.TypeDir && n.kind != tar.TypeDir {
		f.removeAll(name)
	}
	f.tree[name] = n
	for parent := path.Dir(name); f.tree[parent] == nil; parent = path.Dir(parent) {
		f.tree[parent] = &node{kind: tar.TypeDir, mode: 0o755, layer: f.layer}
	}
	return nil
}

// node returns a new inode for an entry. For a hard link, it returns the inode of the
// target.
func (f *flattener) node(name string, header *tar.Header, content io.Reader) (*node, error) {
	if header.Typeflag == tar.TypeLink {
		target := f.tree[path.Join("/", header.Linkname)] //nolint:gosec // the key of a map
		if target == nil {
			return nil, fmt.Errorf("hard link to %s, which is not there", header.Linkname)
		}
		return target, nil
	}
	n := &node{
		kind: header.Typeflag, mode: header.Mode & 0o7777, uid: header.Uid, gid: header.Gid,
		link: header.Linkname, major: header.Devmajor, minor: header.Devminor,
		xattrs: map[string]string{}, mtime: header.ModTime, layer: f.layer,
	}
	for key, value := range header.PAXRecords {
		if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			n.xattrs[attr] = value
		}
	}
	if n.kind == tar.TypeReg {
		data, err := io.ReadAll(content)
		if err != nil {
			return nil, err
		}
		n.content = f.show(name, data)
	}
	return n, nil
}

// remove removes the files of lower layers below name. If self is set, it removes name
// too.
func (f *flattener) remove(name string, self bool) {
	below := strings.TrimSuffix(name, "/") + "/"
	for p, n := range f.tree {
		if (self && p == name || strings.HasPrefix(p, below) && p != name) && n.layer < f.layer {
			delete(f.tree, p)
		}
	}
}

func (f *flattener) removeAll(name string) {
	for p := range f.tree {
		if strings.HasPrefix(p, name+"/") {
			delete(f.tree, p)
		}
	}
}

// clone returns a copy, so that several images can be applied to one base.
func (f *flattener) clone() *flattener {
	return &flattener{tree: maps.Clone(f.tree), layer: f.layer, show: f.show}
}

// String returns the line for an inode in expect.json.
func (n *node) String() string {
	kinds := map[byte]string{
		tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeSymlink: "symlink", tar.TypeFifo: "fifo",
		tar.TypeChar: "char", tar.TypeBlock: "block",
	}
	kind := kinds[n.kind]
	if kind == "" {
		kind = fmt.Sprintf("type %q", n.kind)
	}
	line := fmt.Sprintf("%s %04o %d:%d", kind, n.mode, n.uid, n.gid)
	switch n.kind {
	case tar.TypeReg:
		line += " " + n.content
	case tar.TypeSymlink:
		line += " -> " + n.link
	case tar.TypeChar, tar.TypeBlock:
		line += fmt.Sprintf(" %d:%d", n.major, n.minor)
	}
	return line + quoted(n.xattrs)
}

// quoted returns the entries of m, each after a space.
func quoted(m map[string]string) string {
	var out strings.Builder
	for _, key := range sortedKeys(m) {
		fmt.Fprintf(&out, " %s=%q", key, m[key])
	}
	return out.String()
}

// printable returns name, quoted as in Go if it is not valid UTF-8. JSON could not
// represent such a name.
func printable(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	return strings.Trim(strconv.Quote(name), `"`)
}

// describe returns a line for each path of the tree. The line of a file with hard links
// lists all its names. Modification times are included if timed returns true.
func (t tree) describe(timed func(name string) bool) map[string]string {
	links := map[*node][]string{}
	for _, name := range slices.Sorted(maps.Keys(t)) {
		links[t[name]] = append(links[t[name]], name)
	}
	lines := make(map[string]string, len(t))
	for name, n := range t {
		line := n.String()
		if names := links[n]; len(names) > 1 {
			line += " links " + strings.Join(names, " ")
		}
		if timed(name) {
			line += " mtime " + n.mtime.UTC().Format(time.RFC3339Nano)
		}
		lines[printable(name)] = line
	}
	return lines
}
