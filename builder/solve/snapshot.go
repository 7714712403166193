package solve

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/progress"
	"github.com/shale-build/shale/builder/source/local"
)

// Snapshot is the file tree that a vertex yields: a chain of layers, or files
// outside the store (a build context, a download).
type Snapshot struct {
	// Layer is the ID of the topmost layer; "" with neither Tree nor Draft is
	// an empty file system.
	Layer string
	// Chain is the chainID of Layer, "" for an empty file system.
	Chain digest.Digest
	// Draft is set, and Layer and Chain are not, while the topmost layer is
	// on its way into the store.
	Draft Draft
	// Tree is set for files outside the store; it is a view of Dir.
	Tree *local.Tree
	Dir  string
	// Salt is what else the identity of files outside the store depends on,
	// beside the content of Tree.
	Salt string
}

// Draft is a layer whose files are complete and can be built on.
type Draft interface {
	// Chain waits for the layer's chainID.
	Chain(ctx context.Context) (digest.Digest, error)
	// Layer waits until the layer is in the store and returns its ID.
	Layer(ctx context.Context) (string, error)
	// Failed returns why there will be no layer, nil as long as there may be.
	Failed() error
}

// Settled waits until the snapshot is in the store, or lies outside it.
func (s Snapshot) Settled(ctx context.Context) (Snapshot, error) {
	if s.Draft == nil {
		return s, nil
	}
	chain, err := s.Draft.Chain(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	layer, err := s.Draft.Layer(ctx)
	return Snapshot{Layer: layer, Chain: chain}, err
}

// chain waits for the chainID.
func (s Snapshot) chain(ctx context.Context) (digest.Digest, error) {
	if s.Draft == nil {
		return s.Chain, nil
	}
	return s.Draft.Chain(ctx)
}

// Source is a vertex without inputs, identified but perhaps not fetched.
type Source struct {
	// Chain is the chainID of an image's topmost layer.
	Chain digest.Digest
	// Tree is set for files outside the store; it is a view of Dir.
	Tree *local.Tree
	Dir  string
	// Salt is what else the vertex's identity depends on, beside the
	// content of Tree.
	Salt string
	// Identity names files outside the store that have not been fetched: a
	// commit, a checksum. They are when a step has to read them, by Open;
	// its Snapshot has a Tree.
	Identity string
	Open     func(ctx context.Context, report Reporter) (Snapshot, error)
	// Fetch brings the image's layers into the store and returns the
	// topmost one's ID. It is nil when Tree or Open is set.
	Fetch func(ctx context.Context, report Reporter) (layer string, err error)
}

// Reporter takes what a running vertex has to tell.
type Reporter interface {
	// Stdout and Stderr take the output of the step.
	Stdout() io.Writer
	Stderr() io.Writer
	// Status reports an activity; its Vertex and Timestamp are filled in.
	Status(progress.Status)
}

// Imports are results that were made elsewhere.
type Imports interface {
	// Find looks a key up and brings its layers into the store. What cannot
	// be had is not found.
	Find(ctx context.Context, key cache.Key) (cache.Record, bool)
	// Has tells whether there is something to find.
	Has(key cache.Key) bool
}

// Executor carries out single operations.
type Executor interface {
	// Source identifies a source vertex, fetching as little as it can.
	Source(ctx context.Context, v *llb.Vertex, report Reporter) (Source, error)
	// Prepare gets ready what a vertex needs of the machine, before it is shown
	// as running: what is missing is said by then.
	Prepare(ctx context.Context, v *llb.Vertex) error
	// Run carries out an Exec, File or Merge vertex on the snapshots of its
	// inputs. Both these and the result may be drafts.
	Run(ctx context.Context, v *llb.Vertex, inputs []Snapshot, report Reporter) (Snapshot, error)
	// View shows the files of a snapshot that lies in the store, which is input
	// number i of v: those at least that v looks at. The caller closes the tree.
	View(ctx context.Context, v *llb.Vertex, i int, snap Snapshot) (*local.Tree, error)
	// LayerExists tells whether a layer found in the cache is still in the
	// store.
	LayerExists(id string) bool
}
