// Package recorded lets one id stand for all: it records who would own a file
// where the user namespace has no id to give it to.
//
// A Record is what a file is taken for: its owner and, for a device that could
// not be made, its type and number. Records of files and directories are kept in
// an extended attribute of theirs (Attribute), which overlayfs copies up with the
// file; symbolic links, FIFOs and sockets can have none (xattr(7)) and are
// written down in a Table by inode and time of birth. Where the file system has no user
// attributes, the Table has all files (NewBeside). Who unpacks, copies and
// packs layers reads and writes records through an Owners.
//
// A Supervisor does the same for the programs of a step: a seccomp filter
// (Filter) hands it their calls that name or tell an owner, and it answers as the
// kernel would if all ids were there (seccomp_unotify(2)). Which user a thread
// believes to be is kept by the kernel itself, as a number in the thread's timer
// slack (tag.go), which threads, forks and programs inherit.
//
// What is recorded is not enforced: every process of a step really is root of
// its namespace and may read and write what the image has. The supervisor opens
// what it acts on by itself, in the step's own mount namespace, and never acts on
// a path without having it open.
//
// Needs Linux 5.7 (a listener for all threads); 5.19 keeps signals from
// interrupting calls (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV), 6.6 makes a call
// five times cheaper (SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP). Probe tells what is
// missing.
package recorded
