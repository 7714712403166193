package git

import (
	"context"
	"io"
)

// Objects are the raw objects behind a Commit.
type Objects struct {
	// Commit is the hash of the commit, Raw its object.
	Commit string
	Raw    []byte
	// Tag is the object of the annotated tag, nil for none.
	Tag []byte
}

// Objects fetches c and returns its objects.
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
