package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local/beneath"
)

// User is the identity with which a process runs.
type User struct {
	UID, GID uint32
	// AdditionalGIDs are the supplementary groups in ascending order. GID is always one
	// of them, so that a process cannot gain access by dropping its primary group.
	AdditionalGIDs []uint32
	// Home is the home directory, "/" if passwd has none.
	Home string
	// Name is the login name, "" if passwd has no entry for UID.
	Name string
}

// maxFile is the maximum size in bytes of etc/passwd and etc/group.
const maxFile = 10 << 20

// ErrTooLarge is wrapped by the error for a user database that is too large to be real.
var ErrTooLarge = errors.New("user database too large")

// Resolve returns the user that spec names in root. spec has the form "", user, uid,
// user:group or uid:gid, where names and numbers can be mixed. The empty spec is root. A
// number needs no entry in passwd, but a name does. If spec names no group, the
// supplementary groups are those of etc/group.
func Resolve(root, spec string) (User, error) {
	passwd, err := read(root, "etc/passwd")
	if err != nil {
		return User{}, err
	}
	group, err := read(root, "etc/group")
	if err != nil {
		return User{}, err
	}
	return resolve(spec, passwd, group)
}

func resolve(spec string, passwd, group []byte) (User, error) {
	if spec == "" {
		spec = "0"
	}
	found, err := user.GetExecUser(spec, nil, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		// The error of the library contains the name of the user.
		return User{}, err
	}
	u := User{Home: found.Home}
	if u.Home == "" {
		u.Home = "/"
	}
	if u.UID, err = id(found.Uid); err != nil {
		return User{}, fmt.Errorf("resolve user %q: %w", spec, err)
	}
	if u.GID, err = id(found.Gid); err != nil {
		return User{}, fmt.Errorf("resolve user %q: %w", spec, err)
	}
	u.AdditionalGIDs = []uint32{u.GID}
	for _, g := range found.Sgids {
		gid, err := id(g)
		if err != nil {
			return User{}, fmt.Errorf("resolve groups of user %q: %w", spec, err)
		}
		u.AdditionalGIDs = append(u.AdditionalGIDs, gid)
	}
	slices.Sort(u.AdditionalGIDs)
	u.AdditionalGIDs = slices.Compact(u.AdditionalGIDs)
	u.Name, err = loginName(passwd, found.Uid)
	return u, err
}

func loginName(passwd []byte, uid int) (string, error) {
	users, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(u user.User) bool { return u.Uid == uid })
	if err != nil {
		return "", fmt.Errorf("read etc/passwd: %w", err)
	}
	if len(users) == 0 {
		return "", nil
	}
	return users[0].Name, nil
}

// LookupUser returns the ids of the user with a name in root's etc/passwd.
func LookupUser(root, name string) (uid, gid uint32, found bool, err error) {
	passwd, err := read(root, "etc/passwd")
	if err != nil {
		return 0, 0, false, err
	}
	users, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(u user.User) bool { return u.Name == name })
	if err != nil {
		return 0, 0, false, fmt.Errorf("read etc/passwd: %w", err)
	}
	if len(users) == 0 {
		return 0, 0, false, nil
	}
	if uid, err = id(users[0].Uid); err == nil {
		gid, err = id(users[0].Gid)
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("look up user %q: %w", name, err)
	}
	return uid, gid, true, nil
}

// LookupGroup returns the id of the group with a name in root's etc/group.
func LookupGroup(root, name string) (gid uint32, found bool, err error) {
	group, err := read(root, "etc/group")
	if err != nil {
		return 0, false, err
	}
	groups, err := user.ParseGroupFilter(bytes.NewReader(group), func(g user.Group) bool { return g.Name == name })
	if err != nil {
		return 0, false, fmt.Errorf("read etc/group: %w", err)
	}
	if len(groups) == 0 {
		return 0, false, nil
	}
	if gid, err = id(groups[0].Gid); err != nil {
		return 0, false, fmt.Errorf("look up group %q: %w", name, err)
	}
	return gid, true, nil
}

// id returns n as an id. It must not be negative, and not be (uid_t)-1 or near it,
// because chown(2) and setresuid(2) leave an id unchanged for (uid_t)-1.
func id(n int) (uint32, error) {
	if n < 0 || n > math.MaxInt32 {
		return 0, fmt.Errorf("id %d: %w", n, user.ErrRange)
	}
	return uint32(n), nil
}

// read returns the content of a file in root, or nil if it does not exist.
func read(root, name string) ([]byte, error) {
	dir, err := beneath.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("open root file system: %w", err)
	}
	defer func() { _ = dir.Close() }()
	f, err := beneath.OpenRegular(int(dir.Fd()), name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read user database: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read user database: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read %s: %w: more than %d bytes", name, ErrTooLarge, maxFile)
	}
	return data, nil
}
