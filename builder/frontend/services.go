package frontend

import (
	"context"
	"io/fs"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/progress"
)

// Services are what the front end needs from the rest of the builder. Their
// methods are called from several goroutines at once. A nil service makes a
// Dockerfile that needs it fail with an error that says so.
type Services struct {
	Images    Images
	Layouts   Layouts
	HTTP      HTTP
	Git       Git
	Evaluator Evaluator
	// Progress is told of the front end's own steps, such as loading the
	// Dockerfile, and of lint findings as they are made; nil for nobody.
	Progress progress.Sink
}

// Images finds images in registries and in the local store.
type Images interface {
	// Resolve returns the config of the image ref for a platform (nil for
	// the machine's own). ref has a tag or digest; it is spelled with a
	// registry only where the user did so (HasRegistry). pull asks the
	// registry even if a local image has the name. pinned is the complete
	// name with the digest that the source of the graph will be asked for,
	// "" for ref as it is.
	Resolve(ctx context.Context, ref string, platform *ocispec.Platform, pull bool) (pinned string, dgst digest.Digest, config []byte, err error)
}

// Layouts reads OCI layout directories.
type Layouts interface {
	// Resolve returns the config of the image or index dgst in the layout
	// directory dir for a platform (nil for the machine's own), and the
	// digest of what it came from.
	Resolve(ctx context.Context, dir string, dgst digest.Digest, platform *ocispec.Platform) (digest.Digest, []byte, error)
}

// HTTP asks for what SOURCE_DATE_EPOCH may be taken from.
type HTTP interface {
	// LastModified returns the header of that name, nil when the server
	// sends none.
	LastModified(ctx context.Context, op *pb.SourceOp) (*time.Time, error)
}

// Git finds out what a reference of a git repository means.
type Git interface {
	// Commit asks the repository. With objects it fetches the commit as well.
	Commit(ctx context.Context, op *pb.SourceOp, objects bool) (Commit, error)
}

// Commit is a commit of a git repository.
type Commit struct {
	// Ref is the full name of the reference, "" for a commit by its hash.
	Ref string
	// Object is the hash that the reference names, Peeled that of the commit
	// when Object is an annotated tag, "" otherwise.
	Object, Peeled string
	// Raw and Tag are the objects.
	Raw, Tag []byte
}

// Evaluator executes a graph while the front end is still running. It is only
// needed for contexts that have to be fetched or unpacked first.
type Evaluator interface {
	Evaluate(ctx context.Context, g *llb.Graph) (Root, error)
}

// Root is a file system to read from. Paths are relative to it or start with a
// slash; symbolic links are resolved inside it, as after a chroot. OpenDir
// makes one of a directory.
type Root interface {
	// ReadFile returns at most length bytes from offset on; length 0 means
	// all there are. Only regular files are read. Missing files give
	// fs.ErrNotExist.
	ReadFile(name string, offset, length int64) ([]byte, error)
	// StatFile follows symbolic links.
	StatFile(name string) (fs.FileInfo, error)
	ReadDir(name string) ([]fs.FileInfo, error)
	// Close releases what Evaluate holds.
	Close() error
}
