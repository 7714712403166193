// Package squash joins layers into one: the tar that it writes, unpacked on the
// layers below, gives what the layers gave one after the other.
//
// Nothing is unpacked. Layers are read twice, from the uppermost down to find out
// what of each is still there, and from the lowest up to write it; memory grows
// with the number of names. What the layers delete of those below stays deleted;
// a directory that took the place of something else is opaque.
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

// Names by which layers delete (OCI image specification, layer.md).
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// Layer opens the uncompressed tar of a layer.
type Layer func() (io.ReadCloser, error)

// Join writes one layer for own, lowest first, to w. Below are the layers under
// them, lowest first; they are read only for a hard link to a file that is no
// longer what it was.
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

// surveyed finds out what is left of layers, and whose it is.
func surveyed(ctx context.Context, layers []Layer) (*join, error) {
	j := &join{ctx: ctx, own: layers, nodes: map[string]*node{}, kept: make([]map[int]bool, len(layers))}
	for i := range slices.Backward(layers) {
		if err := j.survey(i); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// names are those that the layers leave, with the directories above them.
func (j *join) names() map[string]bool {
	names := map[string]bool{}
	for name, n := range j.nodes {
		for ; n.kind != gone && name != "." && !names[name]; name = path.Dir(name) {
			names[name] = true
		}
	}
	return names
}

// kind is what a name is in the end.
type kind int

const (
	gone kind = iota
	directory
	other
)

// node is what is known of a name from the layers surveyed so far.
type node struct {
	kind kind
	// opaque hides what the layers below have in a directory; marked tells that
	// this was written.
	opaque, marked bool
	// header is of a directory, layer where the name has it from.
	header  *tar.Header
	layer   int
	written bool
}

// place is an entry of a layer; own layers count from 0, those below from -1 down.
type place struct{ layer, index int }

type join struct {
	ctx        context.Context //nolint:containedctx // it lives for one call of Join
	below, own []Layer
	nodes      map[string]*node
	kept       []map[int]bool
	// there are the names in the layers below. Only they may be deleted: what
	// deletes a name in a directory of this layer alone is a file to overlayfs.
	there map[string]bool
	// moved are files that only had names that are gone, by the name they got.
	moved map[place]string
}

// clean is the name of an entry without what tells nothing.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// hidden tells whether something above p leaves nothing of the layers below it.
func (j *join) hidden(p string) bool {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if n := j.nodes[dir]; n != nil && (n.kind != directory || n.opaque) {
			return true
		}
	}
	return false
}

// each calls visit with every entry of a layer. Returning io.EOF ends it.
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
			// Padding, behind which the layer checks its digest.
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
	}
}

// survey decides what of a layer stays, those above it being known.
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
				opaque[name] = true // it was made anew
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
	// What a layer says counts for those below it.
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

// write writes what stays of a layer. Directories are written where they come
// first, as they are in the end.
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

// writeOpaque says, once, that nothing of the layers below is in a directory.
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

// writeLink writes a hard link of layer i. If its target is another file by now,
// or none, the link becomes the file that it was made to.
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

// find finds the file that a name was in layer i or, if not there, below it.
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

// Layers makes what Join reads of layers and how each is opened.
func Layers[T any](list []T, open func(T) (io.ReadCloser, error)) []Layer {
	return slices.Collect(func(yield func(Layer) bool) {
		for _, l := range list {
			if !yield(func() (io.ReadCloser, error) { return open(l) }) {
				return
			}
		}
	})
}
