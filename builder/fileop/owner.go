package fileop

import (
	"fmt"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/identity"
)

// owner returns the ids of an action's owner, or nil if the action sets no owner. An
// unknown name means 0, as with docker. A user name without a group also selects the
// user's primary group. A user id without a group is used for both.
func (r *runner) owner(o *pb.ChownOpt) (*ids, error) {
	if o == nil {
		return nil, nil //nolint:nilnil // no owner is an answer
	}
	var found ids
	switch u := o.GetUser().GetUser().(type) {
	case *pb.UserOpt_ByID:
		found = ids{u.ByID, u.ByID}
	case *pb.UserOpt_ByName:
		dir, err := r.databases(u.ByName)
		if err != nil {
			return nil, err
		}
		uid, gid, _, err := identity.LookupUser(dir, u.ByName.GetName())
		if err != nil {
			return nil, fmt.Errorf("find owner: %w", err)
		}
		found = ids{uid, gid}
	}
	switch g := o.GetGroup().GetUser().(type) {
	case *pb.UserOpt_ByID:
		found.gid = g.ByID
	case *pb.UserOpt_ByName:
		dir, err := r.databases(g.ByName)
		if err != nil {
			return nil, err
		}
		gid, ok, err := identity.LookupGroup(dir, g.ByName.GetName())
		if err != nil {
			return nil, fmt.Errorf("find owner: %w", err)
		}
		if ok {
			found.gid = gid
		}
	}
	return &found, nil
}

// databases returns the root directory with the passwd and group files for a name.
func (r *runner) databases(n *pb.NamedUserOpt) (string, error) {
	i := int(n.GetInput())
	if i < 0 || i >= len(r.opts.Inputs)+len(r.results) {
		return "", noUsersError(n)
	}
	if j := i - len(r.opts.Inputs); j >= 0 && r.results[j] == nil {
		return "", noUsersError(n)
	}
	dir, tree, err := r.where(i)
	if err != nil {
		return "", err
	}
	if tree != nil {
		return "", fmt.Errorf("%w: owner %q looked up in a build context", ErrUnsupported, n.GetName())
	}
	return dir, nil
}

// noUsersError is the error for a name in FROM scratch or with --link. BuildKit reports
// "invalid user index -1" in this case.
func noUsersError(n *pb.NamedUserOpt) error {
	return fmt.Errorf("user or group %q cannot be looked up in an empty image; use a number", n.GetName())
}
