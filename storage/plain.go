package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/unshare"
	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

// plainRun is the run root of a store that is opened without mounts, below the real run
// root. In the real run root, other programs would take the assumed features for results
// of tests of the kernel.
const plainRun = "shale-plain"

// assumed has the names of files by which the driver remembers results of its test mounts
// (go.podman.io/storage v1.64.2, drivers/overlay, cachedFeatureCheck). They say that
// overlays work, that native diffs work, and that no feature is used by which an upper
// directory refers to a lower one. With the first of them, the driver does not check for
// d_type either.
var assumed = []string{"overlay-true", "metacopy()-false", "native-diff()-true", "volatile-true", "idmapped-lower-dir-false", "dataonly-layers-false"}

// runDirs are directories of the run root without results of kernel tests. They hold
// podman's containers that end with a reboot. The images of these containers must not be
// removed.
var runDirs = []string{driverName + "-containers", driverName + "-layers", driverName + "-locks"}

// graphDirs and graphFiles are the directories and files of the library in a graph root.
var (
	graphDirs  = []string{driverName, driverName + "-images", driverName + "-layers", driverName + "-containers", stateDir}
	graphFiles = []string{"storage.lock", "userns.lock"}
)

// mountProgramFlag is the file in which the driver notes whether the layers of the store
// are for a mount program.
const mountProgramFlag = ".has-mount-program"

// withoutMounts sets options with which the driver starts without mounts and without
// tests that need a mount. If the file system can hold the marks of an overlay, layers
// are like those of any other store and can be used by podman and by overlays. Otherwise
// the library marks deleted names by files, see Location.ForMountProgram. The mount
// program that is set here is never started, because the driver starts it only for a
// mount.
func (l *Location) withoutMounts(so *types.StoreOptions) error {
	st, err := l.Statfs()
	if err != nil {
		return err
	}
	so.RunRoot = filepath.Join(l.so.RunRoot, plainRun)
	so.GraphDriverOptions = append(so.GraphDriverOptions, "overlay.skip_mount_home=true")
	home := filepath.Join(so.RunRoot, driverName)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return fmt.Errorf("create run root: %w", err)
	}
	if err := linkDirs(l.so.RunRoot, so.RunRoot, runDirs); err != nil {
		return err
	}
	if unshare.IsRootless() && isNetwork(st.Type) {
		// On a network file system, according to statfs(2) of the graph root, the driver
		// refuses to work or hides the modes of files from the server.
		dir, err := standIn(isRefused, so.RunRoot, fmt.Sprintf("/dev/shm/shale-%d", os.Getuid()))
		if err != nil {
			return err
		}
		if so.GraphRoot, err = l.elsewhere(dir); err != nil {
			return err
		}
	}
	marks := !l.ForMountProgram()
	if marks {
		if marks, err = l.holdsMarks(); err != nil {
			return err
		}
	}
	if !marks {
		so.GraphDriverOptions = append(so.GraphDriverOptions, "overlay.mount_program=/proc/self/exe")
		return nil
	}
	for _, name := range assumed {
		if err := os.WriteFile(filepath.Join(home, name), nil, 0o600); err != nil {
			return fmt.Errorf("create run root: %w", err)
		}
	}
	return nil
}

// standIn returns the first of dirs that is on a file system that refused does not
// reject. It creates the directories. More than one is needed because the run root of a
// container without a volume is on an overlay. standIn does not use a directory of
// another user, or one that other users can write to.
func standIn(refused func(magic int64) bool, dirs ...string) (string, error) {
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			continue
		}
		var own unix.Stat_t
		var st unix.Statfs_t
		if err := errors.Join(unix.Lstat(dir, &own), unix.Statfs(dir, &st)); err != nil {
			return "", fmt.Errorf("look at %s: %w", dir, err)
		}
		ours := own.Mode&unix.S_IFMT == unix.S_IFDIR && own.Mode&0o022 == 0 && int(own.Uid) == os.Getuid()
		if ours && !refused(st.Type) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the store is on a network file system, and none of %s is on one that holds links to it: name a directory of another file system by --runroot", strings.Join(dirs, " and "))
}

// isRefused reports whether the driver does not work on a file system without a mount
// program (go.podman.io/storage v1.64.2, drivers/overlay, Init).
func isRefused(magic int64) bool {
	switch graphdriver.FsMagic(magic) {
	case graphdriver.FsMagicAufs, graphdriver.FsMagicOverlay, graphdriver.FsMagicEcryptfs:
		return true
	default:
		return false
	}
}

// elsewhere makes a graph root in dir, on another file system. Its parts are symbolic
// links to the parts of the store. The library finds all files by paths below the graph
// root.
func (l *Location) elsewhere(dir string) (string, error) {
	root := filepath.Join(dir, "graph-"+digest.FromString(l.so.GraphRoot).Encoded()[:16])
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", fmt.Errorf("create run root: %w", err)
	}
	for _, name := range graphFiles {
		if err := linkTo(filepath.Join(l.so.GraphRoot, name), filepath.Join(root, name)); err != nil {
			return "", err
		}
	}
	return root, linkDirs(l.so.GraphRoot, root, graphDirs)
}

// linkDirs creates the directories names in from, and symbolic links to them in dir.
func linkDirs(from, dir string, names []string) error {
	for _, name := range names {
		target := filepath.Join(from, name)
		if err := os.MkdirAll(target, 0o700); err != nil {
			return fmt.Errorf("create directory of the store: %w", err)
		}
		if err := linkTo(target, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func linkTo(target, link string) error {
	if err := os.Symlink(target, link); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("link to a part of the store: %w", err)
	}
	return nil
}

// networkFileSystems are the file systems of Linux on which the driver does not work for
// an unprivileged user (go.podman.io/storage v1.64.2, drivers/overlay,
// isNetworkFileSystem).
var networkFileSystems = map[int64]bool{
	unix.NFS_SUPER_MAGIC: true, unix.SMB_SUPER_MAGIC: true, unix.CIFS_SUPER_MAGIC: true, unix.SMB2_SUPER_MAGIC: true,
	unix.AFS_SUPER_MAGIC: true, unix.AFS_FS_MAGIC: true, unix.CEPH_SUPER_MAGIC: true, unix.OCFS2_SUPER_MAGIC: true,
	gpfsMagic: true, lustreMagic: true,
}

// Numbers of file systems that are not in the kernel.
const (
	gpfsMagic   = 0x47504653
	lustreMagic = 0x0bd00bd0
)

func isNetwork(magic int64) bool { return networkFileSystems[magic] }

// holdsMarks reports whether the file system accepts the marks of an overlay: a character
// device 0/0 for a deleted name (mknod(2), allowed for users since Linux 5.8), and an
// attribute for an opaque directory. An overlay does not accept the device from any user.
// NFS 3 and, before Linux 6.6, tmpfs have no user attributes.
func (l *Location) holdsMarks() (ok bool, err error) {
	tmp, err := l.StateDir("tmp")
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp(tmp, "marks-")
	if err != nil {
		return false, fmt.Errorf("try the marks of an overlay: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	attr := "trusted.overlay.opaque"
	if unshare.IsRootless() {
		attr = "user.overlay.opaque"
	}
	return unix.Mknod(filepath.Join(dir, "deleted"), unix.S_IFCHR, 0) == nil &&
		unix.Lsetxattr(dir, attr, []byte("y"), 0) == nil, nil
}
