package git

import (
	"context"
	"io"
)

// Objects are the raw git objects of a Commit.
type Objects struct {
	// Commit is the hash of the commit. Raw is the commit object.
	Commit string
	Raw    []byte
	// Tag is the object of the annotated tag, or nil.
	Tag []byte
}

// Objects returns the objects of c. It fetches c if the cache does not have it. Messages
// of git are written to stderr.
func (r *Repositories) Objects(ctx context.Context, s Spec, c Commit, stderr io.Writer) (Objects, error) {
	b, g, err := r.ensure(ctx, s, c, stderr)
	if err != nil {
		return Objects{}, err
	}
	defer b.close()
	var o Objects
	if o.Commit, err = g.line(ctx, "rev-parse", "--verify", c.Object+"^{commit}"); err != nil {
		return o, err
	}
	if o.Raw, err = g.run(ctx, "cat-file", "commit", o.Commit); err != nil {
		return o, err
	}
	if o.Commit != c.Object {
		o.Tag, err = g.run(ctx, "cat-file", "tag", c.Object)
	}
	return o, err
}
