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

// User is what a process runs as.
type User struct {
	UID, GID uint32
	// AdditionalGIDs are the supplementary groups in ascending order. GID is
	// always among them, so that a process cannot gain access by dropping
	// its primary group.
	AdditionalGIDs []uint32
	// Home is the home directory, "/" if passwd names none.
	Home string
	// Name is the login name, "" if passwd has no entry for UID.
	Name string
}

// maxFile bounds what is read of etc/passwd and etc/group.
const maxFile = 10 << 20

// ErrTooLarge tells that a user database is larger than any real one.
var ErrTooLarge = errors.New("user database too large")

// Resolve finds the user that spec, one of "", user, uid, user:group, uid:gid
// and their mixtures, means in root. The empty spec is root. Numbers need no
// entry in passwd; names do. Supplementary groups come from etc/group unless
// spec names a group.
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
		// The library's message names the user.
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

// LookupUser finds a user by name in root's etc/passwd and returns its ids.
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

// LookupGroup finds a group by name in root's etc/group and returns its id.
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

// id checks an id: not negative, and not (uid_t)-1 or near it, which chown(2)
// and setresuid(2) take for "leave as it is".
func id(n int) (uint32, error) {
	if n < 0 || n > math.MaxInt32 {
		return 0, fmt.Errorf("id %d: %w", n, user.ErrRange)
	}
	return uint32(n), nil
}

// read returns the content of a file of the root, nothing if there is none.
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
