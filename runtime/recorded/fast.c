// The calls that steps make most, answered without entering Go: those that look at
// files and at themselves, and those that turn out to be the kernel's to carry out.
// What is rare, or changes anything, is Go's. Both give the same answers: what a
// function here leaves to Go, Go decides anew.
//
// The working directory is the builder's /proc and the root directory the step's
// (supervisor.go).

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

// linux/seccomp.h, of which older ones have not all.
#define IOCTL_RECV 0xc0502100UL
#define IOCTL_SEND 0xc0182101UL
#define IOCTL_VALID 0x40082102UL
#define FLAG_CONTINUE 1

#define ATTRIBUTE "user.containers.override_stat"

enum { PAGE = 4096 }; // the least there is

struct response {
	uint64_t id;
	int64_t val;
	int32_t error;
	uint32_t flags;
};

// What is to be done about a call.
enum verdict {
	GO,     // Go decides
	PASS,   // the kernel carries it out
	ANSWER, // a value, or a negative errno
};

typedef struct shale_recorded sup;
typedef struct shale_recorded_call call;
typedef struct shale_recorded_creds creds;
typedef struct shale_recorded_table table;

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

// read_text copies a string of a thread into s->text: its length, -1 if it cannot
// be read, -2 if it is longer than what is read at once.
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

// set_path makes s->path how this thread reaches what the first size characters of
// s->text name (Supervisor.name). It tells whether it could.
static int set_path(sup *s, uint32_t tid, int dirfd, size_t size)
{
	char *to = s->path;

	if (size && s->text[0] == '/') {
		// Links to the thread itself are for Go.
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

// locate makes s->path what a call that describes a file means (statName).
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

// in_table tells whether the file s->path may be in the table.
static int in_table(const sup *s, const table *t, int follow)
{
	struct statx x;
	uint32_t bit;

	if (size_of(t) == 0 || syscall(SYS_statx, AT_FDCWD, s->path, follow ? 0 : AT_SYMLINK_NOFOLLOW, STATX_INO, &x))
		return 0;
	bit = shale_recorded_bit(x.stx_ino);
	return (__atomic_load_n(&t->bits[bit / 64], __ATOMIC_ACQUIRE) >> (bit % 64)) & 1;
}

// lookup finds what is recorded of s->path: PASS for nothing, ANSWER for the
// size bytes in s->value, GO if it may be in the table.
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

// put copies data into the caller's memory (Supervisor.write): 0 or a negative errno.
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

// owner is who the file in s->path is taken to belong to.
struct owner {
	uint32_t uid, gid;
	int nofollow; // AT_SYMLINK_NOFOLLOW if the file is not what a link leads to
};

// owner_of finds the owner that a call which describes a file is to show: PASS if
// none is recorded.
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

// list passes on a call that lists attributes of a file without a record.
static enum verdict list(sup *s, const table *t, const call *n, int dirfd, uint64_t path, int flags)
{
	int follow;
	long size;
	enum verdict v = locate(s, n, dirfd, path, flags, &follow);

	if (v == ANSWER)
		v = lookup(s, t, follow, &size);
	return v == PASS ? PASS : GO;
}

// keep passes on a call that moves or changes a file which is not in the table.
static enum verdict keep(sup *s, const table *t, const call *n, int dirfd, uint64_t path, int flags)
{
	if (size_of(t) == 0)
		return PASS;
	return list(s, t, n, dirfd, path, path ? flags : AT_EMPTY_PATH);
}

// keep_renamed is keep for a call that may have two files change places.
static enum verdict keep_renamed(sup *s, const table *t, const call *n)
{
	if (n->args[4] & RENAME_EXCHANGE && keep(s, t, n, (int)n->args[2], n->args[3], AT_SYMLINK_NOFOLLOW) == GO)
		return GO;
	return keep(s, t, n, (int)n->args[0], n->args[1], AT_SYMLINK_NOFOLLOW);
}

// keep_linked is keep for a call that may make a link to what a link leads to.
static enum verdict keep_linked(sup *s, const table *t, const call *n)
{
	int flags = (int)n->args[4] & AT_EMPTY_PATH;

	if (!(n->args[4] & AT_SYMLINK_FOLLOW))
		flags |= AT_SYMLINK_NOFOLLOW;
	return keep(s, t, n, (int)n->args[0], n->args[1], flags);
}

// creds_of returns the credentials of a thread, NULL if only Go knows them (tag.go).
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

// create passes on a call that makes a file where it becomes root's, as the kernel
// has it (newOwner).
static enum verdict create(sup *s, const call *n, int dirfd, uint64_t path)
{
	const creds *c = creds_of(s, n->pid);
	struct stat st;
	char *base;
	int size;

	if (!c || c->fsuid || c->fsgid)
		return GO;
	size = read_text(s, n->pid, path);
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
	// A directory that is missing may be there, and set-gid, for the kernel.
	if (fstatat(AT_FDCWD, s->path, &st, 0))
		return errno == ENOENT ? GO : PASS;
	return st.st_mode & S_ISGID ? GO : PASS;
}

// open_new is create for an open call.
static enum verdict open_new(sup *s, const call *n, int dirfd, uint64_t path, uint64_t flags)
{
	struct stat st;
	enum verdict v = GO;

	if ((flags & O_TMPFILE) != O_TMPFILE)
		v = create(s, n, dirfd, path);
	if (v != PASS || flags & (O_EXCL | O_NOFOLLOW))
		return v;
	// A link may lead to where another directory says whose the file is.
	if (!set_path(s, n->pid, dirfd, strlen(s->text)))
		return GO;
	return fstatat(AT_FDCWD, s->path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode) ? GO : PASS;
}

// execute passes on a program that changes nobody's identity.
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

// give passes on a change of owner to root by root of a file that is root's. The
// ids are no memory of the caller, which another thread could change.
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
		return create(s, n, AT_FDCWD, a[0]);
	case SYS_symlink:
		return create(s, n, AT_FDCWD, a[1]);
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
		return create(s, n, (int)a[0], a[1]);
	case SYS_symlinkat:
		return create(s, n, (int)a[1], a[2]);

	case SYS_execve:
		return execute(s, n, AT_FDCWD, a[0], 0);
	case SYS_execveat:
		return execute(s, n, (int)a[0], a[1], (int)a[4]);
	case SYS_fchown:
		return give(s, t, n);
	}
	return GO;
}

// at_root tells whether a thread's root directory is the step's (Supervisor.follow).
static int at_root(uint32_t tid)
{
	char path[32], to[2];

	*WORD(number(path, tid), "/root") = '\0';
	return readlink(path, to, sizeof(to)) == 1 && to[0] == '/';
}

// await waits for a call: 0, -1 when there will be none, or an errno.
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

		// ENOENT from receiving: who asked was killed, or nobody is left.
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
		// ENOENT: killed meanwhile.
		while (ioctl(s->listener, IOCTL_SEND, &r))
			if (errno == ENOENT)
				break;
			else if (errno != EINTR)
				return errno;
	}
}
