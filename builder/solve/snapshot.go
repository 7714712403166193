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

// Snapshot is the file tree that a vertex returns: a chain of layers, or files outside
// the store (a build context or a download).
type Snapshot struct {
	// Layer is the ID of the topmost layer. If it is "" and neither Tree nor Draft is
	// set, the snapshot is an empty file system.
	Layer string
	// Chain is the chainID of Layer, or "" for an empty file system.
	Chain digest.Digest
	// Draft is set while the topmost layer is not in the store yet. Layer and Chain are
	// then empty.
	Draft Draft
	// Tree is set for files outside the store. It is a view of the directory Dir.
	Tree *local.Tree
	Dir  string
	// Salt is part of the identity of files outside the store, in addition to the content
	// of Tree.
	Salt string
}

// Draft is a layer that is not committed yet. Its files are complete, and other steps can
// build on it.
type Draft interface {
	// Chain waits for the layer's chainID and returns it.
	Chain(ctx context.Context) (digest.Digest, error)
	// Layer waits until the layer is in the store and returns its ID.
	Layer(ctx context.Context) (string, error)
	// Failed returns the error that prevented the commit of the layer. It returns nil
	// while the layer may still be committed.
	Failed() error
}

// Settled waits until the snapshot is in the store and returns it with Layer and Chain
// set. It returns a snapshot that is not a draft unchanged. An error means that the layer
// could not be packed or committed, or that ctx was cancelled.
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

// chain waits for the chainID and returns it.
func (s Snapshot) chain(ctx context.Context) (digest.Digest, error) {
	if s.Draft == nil {
		return s.Chain, nil
	}
	return s.Draft.Chain(ctx)
}

// Source is the identity of a vertex without inputs. Its files may not be fetched yet.
type Source struct {
	// Chain is the chainID of an image's topmost layer.
	Chain digest.Digest
	// Tree is set for files outside the store. It is a view of the directory Dir.
	Tree *local.Tree
	Dir  string
	// Salt is part of the vertex's identity, in addition to the content of Tree.
	Salt string
	// Identity names files outside the store that are not fetched yet, by a commit or a
	// checksum. Open fetches them when a step must read them. The Snapshot that Open
	// returns has a Tree.
	Identity string
	Open     func(ctx context.Context, report Reporter) (Snapshot, error)
	// Fetch fetches the image's layers into the store and returns the ID of the topmost
	// layer. It is nil if Tree or Open is set.
	Fetch func(ctx context.Context, report Reporter) (layer string, err error)
}

// Reporter receives the output and the activities of a running vertex.
type Reporter interface {
	// Stdout and Stderr return writers for the output of the step.
	Stdout() io.Writer
	Stderr() io.Writer
	// Status reports an activity. It sets the Vertex and Timestamp of its argument.
	Status(progress.Status)
}

// Imports are results of other builds that can be fetched, for example from a registry.
type Imports interface {
	// Find looks up a key and fetches its layers into the store. It returns false if the
	// key is not known or if its layers cannot be fetched.
	Find(ctx context.Context, key cache.Key) (cache.Record, bool)
	// Has reports whether Find may find key.
	Has(key cache.Key) bool
}

// Executor runs single operations.
type Executor interface {
	// Source returns the identity of a source vertex. It fetches as little as possible.
	Source(ctx context.Context, v *llb.Vertex, report Reporter) (Source, error)
	// Prepare sets up the resources of the machine that the vertex needs. It is called
	// before the vertex is shown as running, and warns about limits that the machine
	// cannot apply.
	Prepare(ctx context.Context, v *llb.Vertex) error
	// Run runs an Exec, File or Merge vertex on the snapshots of its inputs. The inputs
	// and the result may be drafts.
	Run(ctx context.Context, v *llb.Vertex, inputs []Snapshot, report Reporter) (Snapshot, error)
	// View opens the files of snap, which is input number i of v. snap must be in the
	// store. The tree has at least the files that v reads. The caller must close the
	// tree.
	View(ctx context.Context, v *llb.Vertex, i int, snap Snapshot) (*local.Tree, error)
	// LayerExists reports whether a layer from a cache record is still in the store.
	LayerExists(id string) bool
}
