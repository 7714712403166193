// Package recorded records the owners of files if the user namespace maps only one id.
// Then all files belong to that id, and their intended owner is kept in a record.
//
// A Record has the owner of a file. For a device that could not be created, it also has
// the device type and number. The records of regular files and directories are xattrs of
// the files (Attribute). Overlayfs copies them up with the file. Symbolic links, FIFOs
// and sockets cannot have such xattrs (xattr(7)), so a Table holds their records. It
// identifies files by inode number and time of birth. If the file system does not support
// user xattrs, the Table holds the records of all files (NewBeside). Code that unpacks,
// copies or packs layers reads and writes records through Owners.
//
// A Supervisor does the same for the programs of a step. A seccomp filter (Filter) passes
// to it all system calls that set or show an owner. The supervisor answers them as the
// kernel would if all ids were mapped (seccomp_unotify(2)). The kernel itself stores the
// credentials of each thread, as a number in the timer slack of the thread (tag.go). New
// threads, forks and programs inherit that number.
//
// Recorded owners are not enforced. Every process of a step is root of its user
// namespace, and may read and write all files of the image. The supervisor opens each
// file that it acts on in the mount namespace of the step. It never acts on a path
// without an open file descriptor.
//
// The package needs Linux 5.7, for a seccomp listener for all threads. With Linux 5.19
// signals no longer interrupt calls that the supervisor has received
// (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV). With Linux 6.6 a call takes a fifth of the
// time (SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP). Probe returns an error that names a missing
// requirement.
package recorded
