// This file answers the most frequent calls of steps without entering Go. These calls
// show files or the ids of the caller, or the kernel can carry them out unchanged. Go
// answers rare calls and calls for which the supervisor must change a file. If a function
// here leaves a call to Go, Go decides from the beginning. Both give the same answers.
//
// The thread that runs this code has the builder's /proc as its working directory and
// the step's root directory as its root directory (supervisor.go).

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fast.h"

// From linux/seccomp.h. Older versions of that header lack some of these constants.
#define IOCTL_RECV 0xc0502100UL
#define IOCTL_SEND 0xc0182101UL
#define IOCTL_VALID 0x40082102UL
#define FLAG_CONTINUE 1

#define ATTRIBUTE "user.containers.override_stat"

enum { PAGE = 4096 }; // the smallest page size

// response is struct seccomp_notif_resp.
struct response {
	uint64_t id;
	int64_t val;
	int32_t error;
	uint32_t flags;
};

// verdict is a decision about a call. The functions that only look up a file return
// ANSWER if they have found it, so that the caller can decide.
enum verdict {
	GO,     // Go decides
	PASS,   // the kernel carries out the call
	ANSWER, // the supervisor answers with a value or a negative errno
};

typedef struct shale_recorded sup;
typedef struct shale_recorded_call call;
typedef struct shale_recorded_creds creds;
typedef struct shale_recorded_table table;

// number and word write to the buffer to, without a NUL, and return the end of the text.

static char *number(char *to, uint32_t n)
{
	char digits[10];
	int i = 0;

	do
		digits[i++] = (char)('0' + n % 10);
	while (n /= 10);
	while (i)
		*to++ = digits[--i];
	return to;
}

static char *word(char *to, const char *text, size_t size)
{
	memcpy(to, text, size);
	return to + size;
}

#define WORD(to, text) word(to, text, sizeof(text) - 1)

static int begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

// read_text copies a string of a thread into s->text. It returns the length of the
// string, -1 if the string cannot be read, or -2 if the bytes that were read have no NUL.
// It fills s->text at most and stops at the end of the page: the kernel copies a piece
// completely or not at all, and the next page may be missing. After a negative result,
// s->text may have no NUL.
static int read_text(sup *s, uint32_t tid, uint64_t at)
{
	size_t most = PAGE - at % PAGE;
	struct iovec local = { s->text, sizeof(s->text) }, remote = { (void *)(uintptr_t)at, most };
	ssize_t n;
	char *end;

	if (most > sizeof(s->text))
		remote.iov_len = sizeof(s->text);
	n = process_vm_readv((pid_t)tid, &local, 1, &remote, 1, 0);
	if (n <= 0)
		return -1;
	end = memchr(s->text, '\0', (size_t)n);
	return end ? (int)(end - s->text) : -2;
}

_Static_assert(sizeof(((sup *)0)->path) > sizeof(((sup *)0)->text) + sizeof("4294967295/fd/4294967295/"),
	"set_path needs room for the longest text");

// set_path sets s->path to the path by which the supervisor's thread reaches a file of
// the thread tid (Supervisor.name). The first size characters of s->text are the thread's
// path, relative to dirfd. If size is 0, the file is dirfd itself. set_path returns 0 if
// it cannot translate the path. size must be a result of read_text, or less.
static int set_path(sup *s, uint32_t tid, int dirfd, size_t size)
{
	char *to = s->path;

	if (size >= sizeof(s->text))
		return 0;
	if (size && s->text[0] == '/') {
		// These paths may refer to the thread itself. Go translates them.
		if (begins(s->text, "/proc/") || begins(s->text, "/dev/fd/") || begins(s->text, "/dev/std"))
			return 0;
	} else {
		if (dirfd < 0 && dirfd != AT_FDCWD)
			return 0;
		to = number(to, tid);
		if (dirfd == AT_FDCWD)
			to = WORD(to, "/cwd");
		else
			to = number(WORD(to, "/fd/"), (uint32_t)dirfd);
		if (size)
			*to++ = '/';
	}
	*word(to, s->text, size) = '\0';
	return 1;
}

// locate sets s->path to the path of the file that a call describes. It sets follow if
// the call follows a symbolic link (Supervisor.statName). It returns ANSWER if both are
// set. It returns PASS if the call must fail, so that the kernel returns the error.
static enum verdict locate(sup *s, const call *n, int dirfd, uint64_t path, int flags, int *follow)
{
	int size = 0;

	if (path)
		size = read_text(s, n->pid, path);
	if (size == -1)
		return PASS;
	if (size < 0)
		return GO;
	if (size == 0 && !(flags & AT_EMPTY_PATH))
		return PASS;
	*follow = size == 0 || !(flags & AT_SYMLINK_NOFOLLOW);
	return set_path(s, n->pid, dirfd, (size_t)size) ? ANSWER : GO;
}

uint32_t shale_recorded_bit(uint64_t ino)
{
	return (uint32_t)((ino * 0x9e3779b97f4a7c15ULL) >> 32) % SHALE_RECORDED_BITS;
}

static int64_t size_of(const table *t)
{
	return __atomic_load_n(&t->size, __ATOMIC_ACQUIRE);
}

// in_table reports whether the file s->path may be in the Table. The Bloom filter may
// return 1 for a file that is not in the Table.
static int in_table(const sup *s, const table *t, int follow)
{
	struct statx x;
	uint32_t bit;

	if (size_of(t) == 0 || syscall(SYS_statx, AT_FDCWD, s->path, follow ? 0 : AT_SYMLINK_NOFOLLOW, STATX_INO, &x))
		return 0;
	bit = shale_recorded_bit(x.stx_ino);
	return (__atomic_load_n(&t->bits[bit / 64], __ATOMIC_ACQUIRE) >> (bit % 64)) & 1;
}

// lookup reads the record of the file s->path. It returns ANSWER if the record is in an
// xattr: then s->value has its size bytes. It returns GO if the Table may have the
// record, and PASS if there is no record.
static enum verdict lookup(sup *s, const table *t, int follow, long *size)
{
	*size = (follow ? getxattr : lgetxattr)(s->path, ATTRIBUTE, s->value, sizeof(s->value));
	if (*size >= 0)
		return ANSWER;
	return errno != ENOENT && in_table(s, t, follow) ? GO : PASS;
}

static const char *decimal(const char *at, const char *end, uint32_t *n)
{
	const char *from = at;
	uint64_t v = 0;

	for (; at < end && *at >= '0' && *at <= '9' && at - from < 10; at++)
		v = v * 10 + (uint64_t)(*at - '0');
	*n = (uint32_t)v;
	return at > from && at < end && *at == ':' && v <= UINT32_MAX ? at + 1 : NULL;
}

int shale_recorded_parse(const char *value, long size, uint32_t *uid, uint32_t *gid)
{
	const char *end = value + size, *at = decimal(value, end, uid);

	if (at)
		at = decimal(at, end, gid);
	if (at)
		at = memchr(at, ':', (size_t)(end - at));
	if (!at)
		return 0;
	at++;
	return (end - at == 4 && memcmp(at, "file", 4) == 0) || (end - at == 3 && memcmp(at, "dir", 3) == 0);
}

// put copies data into the caller's memory and returns 0 or a negative errno. It must
// open the memory before it checks that the call is still valid (Supervisor.write).
static int put(const sup *s, const call *n, uint64_t at, const void *data, size_t size)
{
	char path[32];
	int fd, result = 0;

	*WORD(number(path, n->pid), "/mem") = '\0';
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ioctl(s->listener, IOCTL_VALID, &n->id))
		result = -ESRCH;
	else if ((int64_t)at < 0 || pwrite(fd, data, size, (off_t)at) != (ssize_t)size)
		result = -EFAULT;
	close(fd);
	return result;
}

// owner is the recorded owner of the file s->path.
struct owner {
	uint32_t uid, gid;
	int nofollow; // AT_SYMLINK_NOFOLLOW if the call does not follow a symbolic link
};

// owner_of sets o to the recorded owner of the file that a call describes, and returns
// ANSWER. It returns PASS if there is no record, and GO if Go must read the record, for
// example that of a device.
static enum verdict owner_of(sup *s, const table *t, const call *n, int dirfd, uint64_t path, int flags, struct owner *o)
{
	int follow;
	long size;
	enum verdict v = locate(s, n, dirfd, path, flags, &follow);

	if (v == ANSWER)
		v = lookup(s, t, follow, &size);
	if (v != ANSWER)
		return v;
	o->nofollow = follow ? 0 : AT_SYMLINK_NOFOLLOW;
	return shale_recorded_parse(s->value, size, &o->uid, &o->gid) ? ANSWER : GO;
}

static enum verdict describe(sup *s, const table *t, const call *n, int dirfd, uint64_t path, int flags, uint64_t out, int64_t *val)
{
	struct owner o;
	struct stat st;
	enum verdict v = owner_of(s, t, n, dirfd, path, flags, &o);

	if (v != ANSWER)
		return v;
	if (fstatat(AT_FDCWD, s->path, &st, o.nofollow))
		return PASS;
	st.st_uid = o.uid;
	st.st_gid = o.gid;
	*val = put(s, n, out, &st, sizeof(st));
	return ANSWER;
}

static enum verdict describe_x(sup *s, const table *t, const call *n, int64_t *val)
{
	int flags = (int)n->args[2];
	struct owner o;
	struct statx x;
	enum verdict v = owner_of(s, t, n, (int)n->args[0], n->args[1], flags, &o);

	if (v != ANSWER)
		return v;
	flags &= AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT;
	memset(&x, 0, sizeof(x));
	if (syscall(SYS_statx, AT_FDCWD, s->path, flags | o.nofollow, (unsigned int)n->args[3], &x))
		return PASS;
	x.stx_uid = o.uid;
	x.stx_gid = o.gid;
	*val = put(s, n, n->args[4], &x, sizeof(x));
	return ANSWER;
}

// list decides about a call that lists the xattrs of a file. It returns PASS if the file
// has no record. Otherwise Go hides the record's xattr from the result.
static enum verdict list(sup *s, const table *t, const call *n, int dirfd, uint64_t path, int flags)
{
	int follow;
	long size;
	enum verdict v = locate(s, n, dirfd, path, flags, &follow);

	if (v == ANSWER)
		v = lookup(s, t, follow, &size);
	return v == PASS ? PASS : GO;
}

// keep decides about a call that renames, links or changes a file. It returns PASS if the
// file has no record. Otherwise Go preserves a record in the Table (keep.go).
static enum verdict keep(sup *s, const table *t, const call *n, int dirfd, uint64_t path, int flags)
{
	if (size_of(t) == 0)
		return PASS;
	return list(s, t, n, dirfd, path, path ? flags : AT_EMPTY_PATH);
}

// keep_renamed is keep for renameat2(2). If the call exchanges two files, it checks both.
static enum verdict keep_renamed(sup *s, const table *t, const call *n)
{
	if (n->args[4] & RENAME_EXCHANGE && keep(s, t, n, (int)n->args[2], n->args[3], AT_SYMLINK_NOFOLLOW) == GO)
		return GO;
	return keep(s, t, n, (int)n->args[0], n->args[1], AT_SYMLINK_NOFOLLOW);
}

// keep_linked is keep for linkat(2). It follows a symbolic link if the call does.
static enum verdict keep_linked(sup *s, const table *t, const call *n)
{
	int flags = (int)n->args[4] & AT_EMPTY_PATH;

	if (!(n->args[4] & AT_SYMLINK_FOLLOW))
		flags |= AT_SYMLINK_NOFOLLOW;
	return keep(s, t, n, (int)n->args[0], n->args[1], flags);
}

// creds_of returns the credentials of a thread, or NULL if Go must find them (tag.go).
static const creds *creds_of(const sup *s, uint32_t tid)
{
	char path[48], text[24];
	ssize_t n;
	long i;
	int fd;

	if (!s->tagged)
		return &s->creds[0];
	*WORD(number(path, tid), "/timerslack_ns") = '\0';
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return NULL;
	text[n] = '\0';
	i = strtol(text, NULL, 10) - s->slack;
	if (i < 0 || i >= SHALE_RECORDED_CREDS || !s->creds[i].known)
		return NULL;
	return &s->creds[i];
}

// identity sets val to one id of the caller. which is the offset of the id in creds.
static enum verdict identity(const sup *s, const call *n, size_t which, int64_t *val)
{
	const creds *c = creds_of(s, n->pid);
	uint32_t id;

	if (!c)
		return GO;
	memcpy(&id, (const char *)c + which, sizeof(id));
	*val = id;
	return ANSWER;
}

// create decides about a call that creates a file. It returns PASS if the new file
// belongs to root, because the kernel creates it with that owner (Supervisor.newOwner).
// *read becomes the result of read_text for the path, -1 if it was not called.
static enum verdict create(sup *s, const call *n, int dirfd, uint64_t path, int *read)
{
	const creds *c = creds_of(s, n->pid);
	struct stat st;
	char *base;
	int size;

	*read = -1;
	if (!c || c->fsuid || c->fsgid)
		return GO;
	size = *read = read_text(s, n->pid, path);
	if (size == -1)
		return PASS;
	if (size <= 0 || s->text[size - 1] == '/')
		return GO;
	base = memrchr(s->text, '/', (size_t)size);
	base = base ? base + 1 : s->text;
	if (strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
		return GO;
	if (!set_path(s, n->pid, dirfd, (size_t)(base - s->text)))
		return GO;
	// If the directory does not exist, Go decides. Another thread may create it before
	// the kernel looks it up, and it may be set-gid.
	if (fstatat(AT_FDCWD, s->path, &st, 0))
		return errno == ENOENT ? GO : PASS;
	return st.st_mode & S_ISGID ? GO : PASS;
}

// open_new is create for calls that open a file and may create it.
static enum verdict open_new(sup *s, const call *n, int dirfd, uint64_t path, uint64_t flags)
{
	struct stat st;
	int size = -1;
	enum verdict v = GO;

	if ((flags & O_TMPFILE) != O_TMPFILE)
		v = create(s, n, dirfd, path, &size);
	// If the path cannot be read, s->text is not a path, and not even a string.
	if (v != PASS || size < 0 || flags & (O_EXCL | O_NOFOLLOW))
		return v;
	// If the path is a symbolic link, the file is created at the target of the link. The
	// directory of the target decides about the group of the file.
	if (!set_path(s, n->pid, dirfd, (size_t)size))
		return GO;
	return fstatat(AT_FDCWD, s->path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode) ? GO : PASS;
}

// execute decides about the execution of a program. It returns PASS if the credentials of
// the thread stay the same (Supervisor.execute).
static enum verdict execute(sup *s, const call *n, int dirfd, uint64_t path, int flags)
{
	const creds *c;
	int follow;
	struct stat st;
	enum verdict v = locate(s, n, dirfd, path, flags, &follow);

	if (v != ANSWER)
		return v;
	if (fstatat(AT_FDCWD, s->path, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
		return PASS;
	if (st.st_mode & (S_ISUID | S_ISGID))
		return GO;
	c = creds_of(s, n->pid);
	return c && c->stays ? PASS : GO;
}

// give decides about fchown(2). It returns PASS if root changes the owner to root and the
// file already belongs to root. The ids are in registers and not in the caller's memory,
// so that another thread cannot change them after this check.
static enum verdict give(sup *s, const table *t, const call *n)
{
	const creds *c = creds_of(s, n->pid);
	uint32_t uid = (uint32_t)n->args[1], gid = (uint32_t)n->args[2];
	struct stat st;
	long size;

	if (!c || c->euid || (uid && uid != UINT32_MAX) || (gid && gid != UINT32_MAX))
		return GO;
	if (!set_path(s, n->pid, (int)n->args[0], 0) || fstatat(AT_FDCWD, s->path, &st, 0))
		return GO;
	if (st.st_uid || st.st_gid || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		return GO;
	return lookup(s, t, 1, &size) == PASS ? PASS : GO;
}

static enum verdict decide(sup *s, const table *t, const call *n, int64_t *val)
{
	const uint64_t *a = n->args;
	int size;

	switch (n->nr) {
#ifdef SYS_stat
	case SYS_stat:
		return describe(s, t, n, AT_FDCWD, a[0], 0, a[1], val);
	case SYS_lstat:
		return describe(s, t, n, AT_FDCWD, a[0], AT_SYMLINK_NOFOLLOW, a[1], val);
#endif
	case SYS_newfstatat:
		return describe(s, t, n, (int)a[0], a[1], (int)a[3], a[2], val);
	case SYS_fstat:
		return describe(s, t, n, (int)a[0], 0, AT_EMPTY_PATH, a[1], val);
	case SYS_statx:
		return describe_x(s, t, n, val);
	case SYS_listxattr:
		return list(s, t, n, AT_FDCWD, a[0], 0);
	case SYS_llistxattr:
		return list(s, t, n, AT_FDCWD, a[0], AT_SYMLINK_NOFOLLOW);
	case SYS_flistxattr:
		return list(s, t, n, (int)a[0], 0, AT_EMPTY_PATH);

	case SYS_getuid:
		return identity(s, n, offsetof(creds, uid), val);
	case SYS_geteuid:
		return identity(s, n, offsetof(creds, euid), val);
	case SYS_getgid:
		return identity(s, n, offsetof(creds, gid), val);
	case SYS_getegid:
		return identity(s, n, offsetof(creds, egid), val);

#ifdef SYS_open
	case SYS_open:
		return open_new(s, n, AT_FDCWD, a[0], a[1]);
	case SYS_mkdir:
		return create(s, n, AT_FDCWD, a[0], &size);
	case SYS_symlink:
		return create(s, n, AT_FDCWD, a[1], &size);
	case SYS_rename:
	case SYS_link:
		return keep(s, t, n, AT_FDCWD, a[0], AT_SYMLINK_NOFOLLOW);
#endif
#ifdef SYS_renameat
	case SYS_renameat:
		return keep(s, t, n, (int)a[0], a[1], AT_SYMLINK_NOFOLLOW);
#endif
	case SYS_renameat2:
		return keep_renamed(s, t, n);
	case SYS_linkat:
		return keep_linked(s, t, n);
	case SYS_utimensat:
		return keep(s, t, n, (int)a[0], a[1], (int)a[3]);
	case SYS_openat:
		return open_new(s, n, (int)a[0], a[1], a[2]);
	case SYS_mkdirat:
		return create(s, n, (int)a[0], a[1], &size);
	case SYS_symlinkat:
		return create(s, n, (int)a[1], a[2], &size);

	case SYS_execve:
		return execute(s, n, AT_FDCWD, a[0], 0);
	case SYS_execveat:
		return execute(s, n, (int)a[0], a[1], (int)a[4]);
	case SYS_fchown:
		return give(s, t, n);
	}
	return GO;
}

// at_root reports whether a thread has the step's root directory (Supervisor.follow).
static int at_root(uint32_t tid)
{
	char path[32], to[2];

	*WORD(number(path, tid), "/root") = '\0';
	return readlink(path, to, sizeof(to)) == 1 && to[0] == '/';
}

// await waits for a call. It returns 0, -1 if no process is left, or an errno.
static int await(const sup *s)
{
	struct pollfd p = { .fd = s->listener, .events = POLLIN };

	while (poll(&p, 1, -1) < 0)
		if (errno != EINTR)
			return errno;
	return p.revents & POLLIN ? 0 : -1;
}

int shale_recorded_serve(sup *s, const table *t)
{
	call *n = &s->call;
	int e;

	for (int wait = s->wait;; wait = s->wait) {
		struct response r = { 0 };
		enum verdict v = GO;

		// ENOENT: the caller was killed, or no process is left. In the second case,
		// await returns -1 before the next receive.
		do {
			if (wait && (e = await(s)))
				return e;
			memset(n, 0, sizeof(*n));
			e = ioctl(s->listener, IOCTL_RECV, n) ? errno : 0;
			wait = s->wait || e == ENOENT;
		} while (e == EINTR || e == ENOENT);
		if (e)
			return e;
		if (n->nr >= 0 && n->nr < SHALE_RECORDED_CALLS)
			s->count[n->nr]++;
		if (s->running && (!s->moved || at_root(n->pid)))
			v = decide(s, t, n, &r.val);
		if (v == GO)
			return 0;
		r.id = n->id;
		if (v == PASS) {
			r.flags = FLAG_CONTINUE;
		} else if (r.val < 0) {
			r.error = (int32_t)r.val;
			r.val = 0;
		}
		// ENOENT: the caller was killed in the meantime.
		while (ioctl(s->listener, IOCTL_SEND, &r))
			if (errno == ENOENT)
				break;
			else if (errno != EINTR)
				return errno;
	}
}
