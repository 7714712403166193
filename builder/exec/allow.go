package exec

import (
	"fmt"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/entitlements"

	"github.com/shale-build/shale/builder/llb"
)

// LocalDelete is the entitlement that permits a local export to delete files that it did
// not write. It is an entitlement of buildx. Steps cannot request it.
const LocalDelete = "buildx.local.delete"

// Allowed are the entitlements that the user granted with --allow. The zero value grants
// nothing.
type Allowed struct {
	steps entitlements.Set
	// LocalDelete reports whether buildx.local.delete was granted.
	LocalDelete bool
}

// ParseAllow parses values of --allow in docker's syntax: network.host,
// security.insecure, device[=NAME[,alias=ALIAS]] and buildx.local.delete. It returns an
// error for any other value.
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

// DeniedError is returned if a step requests an entitlement that was not granted.
type DeniedError struct {
	// Message is the message that docker shows.
	Message string
	// Grant is the value of --allow that would grant the entitlement.
	Grant string
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("%s; if you trust the Dockerfile, build with --allow %s", e.Message, e.Grant)
}

// Check checks all steps of g before any of them runs. It returns an error that wraps a
// DeniedError if a step requests an entitlement that was not granted. It also selects the
// devices of each step, and empties the cache mounts of steps that must run again.
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

// permit returns a DeniedError if v requests an entitlement that was not granted. It is
// called by Check and again immediately before the step runs.
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
