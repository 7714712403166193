package exec

import (
	"fmt"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/entitlements"

	"github.com/shale-build/shale/builder/llb"
)

// LocalDelete is the entitlement that lets a local export delete what it did
// not write. It is buildx's, and no step's.
const LocalDelete = "buildx.local.delete"

// Allowed are the entitlements that the user granted with --allow. The zero
// value grants none.
type Allowed struct {
	steps entitlements.Set
	// LocalDelete is granted by buildx.local.delete.
	LocalDelete bool
}

// ParseAllow reads docker's spelling: network.host, security.insecure,
// device[=NAME[,alias=ALIAS]] and buildx.local.delete.
func ParseAllow(values []string) (Allowed, error) {
	var a Allowed
	var list []entitlements.Entitlement
	for _, v := range values {
		if v == LocalDelete {
			a.LocalDelete = true
			continue
		}
		list = append(list, entitlements.Entitlement(v))
	}
	var err error
	if a.steps, err = entitlements.WhiteList(list, nil); err != nil {
		return a, err
	}
	return a, nil
}

// DeniedError is a step that wants more than it was granted.
type DeniedError struct {
	// Message is docker's.
	Message string
	// Grant is the value of --allow that would grant it.
	Grant string
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("%s; if you trust the Dockerfile, build with --allow %s", e.Message, e.Grant)
}

// Check refuses a graph of which a step wants what was not granted, before any
// step has run. It settles which devices steps get, and empties the cache mounts
// of steps that must run again.
func (e *Executor) Check(g *llb.Graph) error {
	var empty []string
	for _, v := range g.Vertices {
		if v.Exec == nil {
			continue
		}
		if err := e.permit(v); err != nil {
			return llb.WithSource(err, v)
		}
		if err := e.grantDevices(v); err != nil {
			return llb.WithSource(err, v)
		}
		if v.IgnoreCache {
			empty = append(empty, cacheIDs(v)...)
		}
	}
	if len(empty) == 0 {
		return nil
	}
	return e.Caches.Empty(empty)
}

func cacheIDs(v *llb.Vertex) []string {
	var ids []string
	for _, m := range v.Exec.GetMounts() {
		if m.GetMountType() == pb.MountType_CACHE {
			ids = append(ids, m.GetCacheOpt().GetID())
		}
	}
	return ids
}

// permit is asked again right before the step runs.
func (e *Executor) permit(v *llb.Vertex) error {
	for name, wanted := range map[entitlements.Entitlement]bool{
		entitlements.EntitlementNetworkHost:      v.Exec.GetNetwork() == pb.NetMode_HOST,
		entitlements.EntitlementSecurityInsecure: v.Exec.GetSecurity() == pb.SecurityMode_INSECURE,
	} {
		if wanted && !e.Allowed.steps.Allowed(name) {
			return &DeniedError{Message: fmt.Sprintf("%s is not allowed", name), Grant: name.String()}
		}
	}
	return nil
}
