// Package squash joins layers into one. The new layer, unpacked on the layers below,
// gives the same files as all the original layers, unpacked one after the other.
//
// No layer is unpacked. Each of the joined layers is read twice: first from the topmost
// layer to the lowest, to find the entries that are still visible, and then from the
// lowest to the topmost, to write them. The memory use grows with the number of names.
// The new layer keeps the whiteouts that delete files of the layers below. If a directory
// replaced another file or directory, it is opaque.
package squash

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// Names of whiteouts and opaque directories (OCI image specification, layer.md).
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// Layer opens the uncompressed tar of a layer. The caller must close it.
type Layer func() (io.ReadCloser, error)

// Join joins the layers own and writes the result to w as one tar. below are the layers
// under them. Both lists start with the lowest layer. The layers below are read once for
// their names. They are read again only if a hard link refers to a file that later layers
// replaced or deleted.
func Join(ctx context.Context, w io.Writer, below, own []Layer) error {
	j, err := surveyed(ctx, own)
	if err != nil {
		return fmt.Errorf("join layers: %w", err)
	}
	base, err := surveyed(ctx, below)
	if err != nil {
		return fmt.Errorf("read layers below: %w", err)
	}
	j.below, j.there, j.moved = below, base.names(), map[place]string{}
	tw := tar.NewWriter(w)
	for i := range own {
		if err := j.write(tw, i); err != nil {
			return fmt.Errorf("join layers: %w", err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("join layers: %w", err)
	}
	return nil
}

// surveyed finds the entries of layers that are still visible after the topmost layer.
func surveyed(ctx context.Context, layers []Layer) (*join, error) {
	j := &join{ctx: ctx, own: layers, nodes: map[string]*node{}, kept: make([]map[int]bool, len(layers))}
	for i := range slices.Backward(layers) {
		if err := j.survey(i); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// names returns the names that exist after the last layer, with their parent directories.
func (j *join) names() map[string]bool {
	names := map[string]bool{}
	for name, n := range j.nodes {
		for ; n.kind != gone && name != "." && !names[name]; name = path.Dir(name) {
			names[name] = true
		}
	}
	return names
}

// kind is the type of a name after the last layer.
type kind int

const (
	gone kind = iota
	directory
	other
)

// node is the state of a name after the layers surveyed so far.
type node struct {
	kind kind
	// opaque is set if the directory hides the layers below. marked is set after its
	// opaque entry was written.
	opaque, marked bool
	// header is the header of a directory. layer is the number of the layer that the name
	// comes from.
	header  *tar.Header
	layer   int
	written bool
}

// place is the position of an entry. The own layers are numbered from 0 up, the layers
// below from -1 down.
type place struct{ layer, index int }

type join struct {
	ctx        context.Context //nolint:containedctx // it lives for one call of Join
	below, own []Layer
	nodes      map[string]*node
	kept       []map[int]bool
	// there are the names in the layers below. Only these names get a whiteout. In a
	// directory that exists only in the new layer, overlayfs would show the whiteout as a
	// file.
	there map[string]bool
	// moved are files of which only hard links remain. Each has the name under which it
	// is written.
	moved map[place]string
}

// clean returns the canonical form of an entry's name: relative and without "." and "..".
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// hidden reports whether an entry above p hides everything at p in the lower layers.
func (j *join) hidden(p string) bool {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if n := j.nodes[dir]; n != nil && (n.kind != directory || n.opaque) {
			return true
		}
	}
	return false
}

// each calls visit for every entry of a layer. If visit returns io.EOF, each stops and
// returns nil.
func (j *join) each(l Layer, visit func(index int, h *tar.Header, r io.Reader) error) (err error) {
	r, err := l()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	tr := tar.NewReader(r)
	for i := 0; ; i++ {
		if err := context.Cause(j.ctx); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == nil {
			err = visit(i, h, tr)
			if errors.Is(err, io.EOF) {
				return nil
			}
		} else if errors.Is(err, io.EOF) {
			// Read the padding after the last entry: a layer may verify its digest at
			// EOF.
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
	}
}

// survey finds the entries of layer i that remain. The layers above it must have been
// surveyed.
func (j *join) survey(i int) error {
	kept, fresh, opaque := map[int]bool{}, map[string]*node{}, map[string]bool{}
	err := j.each(j.own[i], func(index int, h *tar.Header, _ io.Reader) error {
		name := clean(h.Name)
		base := path.Base(name)
		deleted, deletes := strings.CutPrefix(base, whiteoutPrefix)
		if base == opaqueName {
			name = path.Dir(name)
		} else if deletes {
			name = path.Join(path.Dir(name), deleted)
		}
		above := j.nodes[name]
		switch {
		case j.hidden(name):
		case base == opaqueName:
			if above == nil || above.kind == directory {
				opaque[name] = true
			}
		case deletes:
			if above == nil {
				kept[index], fresh[name] = true, &node{kind: gone, layer: i}
			} else if above.kind == directory {
				opaque[name] = true // it was deleted and created again
			}
		case h.Typeflag == tar.TypeDir:
			if above == nil {
				fresh[name] = &node{kind: directory, layer: i, header: h}
			} else if above.kind == directory && above.header == nil {
				above.header = h
			}
		case above == nil:
			kept[index], fresh[name] = true, &node{kind: other, layer: i}
		case above.kind == directory:
			opaque[name] = true
		}
		return nil
	})
	// Entries of a layer affect only the layers below it, so add them at the end.
	maps.Copy(j.nodes, fresh)
	for name := range opaque {
		if j.nodes[name] == nil {
			j.nodes[name] = &node{kind: directory, layer: i}
		}
		j.nodes[name].opaque = true
	}
	j.kept[i] = kept
	return err
}

// write writes the remaining entries of layer i. A directory is written at its first
// occurrence, with its final metadata.
func (j *join) write(tw *tar.Writer, i int) error {
	return j.each(j.own[i], func(index int, h *tar.Header, r io.Reader) error {
		name := clean(h.Name)
		if path.Base(name) == opaqueName {
			return j.writeOpaque(tw, path.Dir(name))
		}
		if h.Typeflag == tar.TypeDir {
			n := j.nodes[name]
			if n == nil || n.kind != directory || n.header == nil || n.written {
				return nil
			}
			n.written = true
			if err := tw.WriteHeader(n.header); err != nil {
				return err
			}
			return j.writeOpaque(tw, name)
		}
		if !j.kept[i][index] {
			return nil
		}
		if gone, ok := strings.CutPrefix(path.Base(name), whiteoutPrefix); ok {
			if gone = path.Join(path.Dir(name), gone); !j.there[gone] || j.hidden(gone) {
				return nil
			}
		}
		if h.Typeflag == tar.TypeLink {
			return j.writeLink(tw, i, h)
		}
		return writeFile(tw, h, r)
	})
}

// writeOpaque marks a directory as opaque, at most once.
func (j *join) writeOpaque(tw *tar.Writer, name string) error {
	n := j.nodes[name]
	if n == nil || n.kind != directory || !n.opaque || n.marked || !j.there[name] || n.header != nil && !n.written {
		return nil
	}
	n.marked = true
	return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(name, opaqueName), Mode: 0o600, Format: tar.FormatPAX})
}

func writeFile(tw *tar.Writer, h *tar.Header, r io.Reader) error {
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(tw, r)
	return err
}

// writeLink writes a hard link of layer i. If its target was replaced or deleted, the
// first such link is written as a regular file with the original content.
func (j *join) writeLink(tw *tar.Writer, i int, h *tar.Header) error {
	target := clean(h.Linkname)
	n := j.nodes[target]
	if n == nil && !j.hidden(target) || n != nil && n.kind == other && n.layer <= i {
		return tw.WriteHeader(h)
	}
	from, err := j.find(target, i)
	if err != nil {
		return fmt.Errorf("hard link %s: %w", h.Name, err)
	}
	if name, ok := j.moved[from]; ok {
		link := *h
		link.Linkname = name
		return tw.WriteHeader(&link)
	}
	j.moved[from] = h.Name
	return j.each(j.layer(from.layer), func(index int, source *tar.Header, r io.Reader) error {
		if index != from.index {
			return nil
		}
		file := *source
		file.Name = h.Name
		if err := writeFile(tw, &file, r); err != nil {
			return err
		}
		return io.EOF
	})
}

func (j *join) layer(i int) Layer {
	if i >= 0 {
		return j.own[i]
	}
	return j.below[len(j.below)+i]
}

// find returns the position of the file name, as it was in layer i. If layer i does not
// have it, find looks in the layers below.
func (j *join) find(name string, i int) (place, error) {
	for ; i >= -len(j.below); i-- {
		found, link := place{index: -1}, ""
		err := j.each(j.layer(i), func(index int, h *tar.Header, _ io.Reader) error {
			if clean(h.Name) == name && h.Typeflag != tar.TypeDir {
				found, link = place{i, index}, ""
				if h.Typeflag == tar.TypeLink {
					link = clean(h.Linkname)
				}
			}
			return nil
		})
		if err != nil {
			return place{}, err
		}
		if link != "" && link != name {
			return j.find(link, i)
		}
		if found.index >= 0 {
			return found, nil
		}
	}
	return place{}, fmt.Errorf("no layer has its target %s", name)
}

// Layers converts a list to layers. open opens one element of the list.
func Layers[T any](list []T, open func(T) (io.ReadCloser, error)) []Layer {
	return slices.Collect(func(yield func(Layer) bool) {
		for _, l := range list {
			if !yield(func() (io.ReadCloser, error) { return open(l) }) {
				return
			}
		}
	})
}
