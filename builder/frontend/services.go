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

// Services are the services that the front end needs from the rest of the builder. Their
// methods must be safe for concurrent use. If a Dockerfile needs a service that is nil,
// the build fails with an error that says so.
type Services struct {
	Images    Images
	Layouts   Layouts
	HTTP      HTTP
	Git       Git
	Evaluator Evaluator
	// Progress receives the steps of the front end itself, for example loading the
	// Dockerfile, and lint findings as they are made. It may be nil.
	Progress progress.Sink
}

// Images finds images in registries and in the local store.
type Images interface {
	// Resolve returns the config of the image ref for a platform; nil is the platform of
	// this machine. ref has a tag or a digest. It has a registry only if the user spelled
	// one (HasRegistry). If pull is set, Resolve asks the registry even if a local image
	// has the name. pinned is the complete name with a digest, which the graph then uses
	// for the source. It is "" if the graph should use ref.
	Resolve(ctx context.Context, ref string, platform *ocispec.Platform, pull bool) (pinned string, dgst digest.Digest, config []byte, err error)
}

// Layouts reads OCI layout directories.
type Layouts interface {
	// Resolve returns the config of an image in the layout directory dir, and the digest
	// of its manifest. dgst is the digest of an image or of an index, from which Resolve
	// selects the platform; nil is the platform of this machine.
	Resolve(ctx context.Context, dir string, dgst digest.Digest, platform *ocispec.Platform) (digest.Digest, []byte, error)
}

// HTTP provides the metadata from which SOURCE_DATE_EPOCH may be taken.
type HTTP interface {
	// LastModified returns the value of the header Last-Modified, or nil if the server
	// does not send it.
	LastModified(ctx context.Context, op *pb.SourceOp) (*time.Time, error)
}

// Git resolves references of git repositories.
type Git interface {
	// Commit asks the repository for the commit that op refers to. If objects is set, it
	// fetches the commit as well.
	Commit(ctx context.Context, op *pb.SourceOp, objects bool) (Commit, error)
}

// Commit is a commit of a git repository.
type Commit struct {
	// Ref is the full name of the reference, "" for a commit given by its hash.
	Ref string
	// Object is the hash that the reference names. If Object is an annotated tag, Peeled
	// is the hash of its commit; otherwise it is "".
	Object, Peeled string
	// Raw and Tag are the content of the commit and tag objects.
	Raw, Tag []byte
}

// Evaluator executes a graph while the front end still runs. It is needed only for
// contexts that must be fetched or unpacked.
type Evaluator interface {
	Evaluate(ctx context.Context, g *llb.Graph) (Root, error)
}

// Root is a file system that can be read. Paths are relative to it or start with a slash.
// Symbolic links are resolved inside it, as after a chroot. OpenDir returns a Root for a
// directory.
type Root interface {
	// ReadFile returns at most length bytes from offset. Length 0 means all bytes to the
	// end. It returns an error for a file that is not regular, and fs.ErrNotExist for a
	// missing file.
	ReadFile(name string, offset, length int64) ([]byte, error)
	// StatFile follows symbolic links.
	StatFile(name string) (fs.FileInfo, error)
	ReadDir(name string) ([]fs.FileInfo, error)
	// Close releases the resources that Evaluate holds.
	Close() error
}
