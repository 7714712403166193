package userns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// facts are the inputs for the choice of a mode.
type facts struct {
	uid, gid         int
	user             string
	caps             uint64 // effective
	uidMap, gidMap   []extent
	subUIDs, subGIDs []IDRange
	newUIDMap        string // path; empty if not installed
	newGIDMap        string
}

// plan is a request to the C constructor (entry.c).
type plan struct {
	mode   Mode
	reason string
	how    string // "mount", "self" or "helper", see entry.c
	tools  bool
	uidMap string
	gidMap string
}

func gather(ctx context.Context) facts {
	f := facts{uid: os.Geteuid(), gid: os.Getegid(), caps: effectiveCaps()}
	f.user = userName(f.uid)
	f.uidMap, f.gidMap = readMap("/proc/self/uid_map"), readMap("/proc/self/gid_map")
	if f.uid == 0 {
		return f
	}
	f.newUIDMap, _ = exec.LookPath("newuidmap")
	f.newGIDMap, _ = exec.LookPath("newgidmap")
	f.subUIDs = SubUIDs(ctx, f.user, f.uid)
	f.subGIDs = SubGIDs(ctx, f.user, f.uid)
	return f
}

// userName returns the name of the user. For an account that is not in /etc/passwd
// (LDAP), it uses the environment. That is safe, because newuidmap checks the name again.
func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	if n := os.Getenv("USER"); n != "" {
		return n
	}
	return os.Getenv("LOGNAME")
}

func effectiveCaps() uint64 {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
}

func (f facts) has(capability uint) bool { return f.caps>>capability&1 != 0 }

// choose returns the plan for force or, if that is empty, for the best mode that the
// facts allow.
func choose(f facts, force Mode) (plan, error) {
	mode := force
	if mode == "" {
		mode = best(f)
	}
	switch mode {
	case ModeRoot:
		return plan{mode: ModeRoot, how: "mount"}, nil
	case ModeIdentity:
		p := plan{mode: ModeIdentity, how: "helper", uidMap: identity(f.uidMap), gidMap: identity(f.gidMap)}
		if p.uidMap == "" || p.gidMap == "" {
			return plan{}, &Error{Step: "reading uid_map", Err: unix.EINVAL}
		}
		return p, nil
	case ModeFull:
		if why := noFullMap(f); why != "" {
			if force != "" {
				return plan{}, &Error{Step: "newuidmap", Err: errors.New(why), Fix: f.fix(programDirs, "/etc/subuid", "/etc/subgid")}
			}
			return plan{mode: ModeSingle, reason: why, how: "self"}, nil
		}
		return plan{
			mode: ModeFull, how: "helper", tools: true,
			uidMap: toolMap(f.uid, f.subUIDs), gidMap: toolMap(f.gid, f.subGIDs),
		}, nil
	case ModeSingle:
		return plan{mode: ModeSingle, reason: "asked for", how: "self"}, nil
	default:
		return plan{}, &Error{Step: "choose mode", Err: fmt.Errorf("unknown mode %q", mode)}
	}
}

func best(f facts) Mode {
	switch {
	case f.uid != 0:
		return ModeFull
	case f.has(unix.CAP_SYS_ADMIN):
		return ModeRoot
	default:
		return ModeIdentity
	}
}

// noFullMap returns the reason for which a full map is not possible, or "" if it is
// possible.
func noFullMap(f facts) string {
	switch {
	case f.newUIDMap == "":
		return "newuidmap is not installed (install the package uidmap)"
	case f.newGIDMap == "":
		return "newgidmap is not installed (install the package uidmap)"
	case len(usable(f.uid, f.subUIDs)) == 0:
		return "no range for user " + name(f) + " in /etc/subuid"
	case len(usable(f.gid, f.subGIDs)) == 0:
		return "no range for user " + name(f) + " in /etc/subgid"
	}
	return ""
}

func name(f facts) string {
	if f.user != "" {
		return f.user
	}
	return strconv.Itoa(f.uid)
}

// environ returns env with the request of p. It removes the variables of an earlier
// request.
func (p plan) environ(f facts, env []string) []string {
	out := make([]string, 0, len(env)+8)
	for _, kv := range env {
		if !strings.HasPrefix(kv, envRequest) {
			out = append(out, kv)
		}
	}
	out = append(out,
		envRequest+"="+p.how,
		envMode+"="+string(p.mode),
		envReason+"="+p.reason,
		envOuter+"="+strconv.Itoa(f.uid)+":"+strconv.Itoa(f.gid))
	if p.how == "helper" {
		out = append(out, envUIDMap+"="+p.uidMap, envGIDMap+"="+p.gidMap)
	}
	if p.tools {
		out = append(out, envNewUIDMap+"="+f.newUIDMap, envNewGIDMap+"="+f.newGIDMap)
	}
	return out
}
