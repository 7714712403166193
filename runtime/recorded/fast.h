#ifndef SHALE_RECORDED_FAST_H
#define SHALE_RECORDED_FAST_H

#include <stdint.h>

// A system call that the filter passes to the supervisor: struct seccomp_notif.
struct shale_recorded_call {
	uint64_t id;
	uint32_t pid;
	uint32_t flags;
	int32_t nr;
	uint32_t arch;
	uint64_t ip;
	uint64_t args[6];
};

// The ids that a thread would have if all ids were mapped. Only Go has the saved ids,
// the supplementary groups and the state of PR_SET_KEEPCAPS (creds.go).
struct shale_recorded_creds {
	uint32_t uid, euid, fsuid;
	uint32_t gid, egid, fsgid;
	int32_t known; // 0: only Go knows these credentials
	int32_t stays; // a program without set-id bits keeps these credentials
};

enum { SHALE_RECORDED_CREDS = 256, SHALE_RECORDED_CALLS = 512 };

// The state of a supervisor that C and Go share. C uses it during shale_recorded_serve,
// and Go uses it between the calls of that function.
struct shale_recorded {
	int32_t listener;
	int32_t wait;    // poll before each receive (needed before Linux 6.11)
	int32_t running; // the first program was executed; before that, Go answers all calls
	int32_t moved;   // a process has changed its root directory
	int32_t tagged;  // threads may have other credentials than the first process
	int32_t slack;   // timer slack of threads with the first process's credentials
	// The credentials by tag (tag.go). Tag 0 stands for those of the first process.
	struct shale_recorded_creds creds[SHALE_RECORDED_CREDS];
	uint64_t count[SHALE_RECORDED_CALLS]; // calls by system call number
	struct shale_recorded_call call;      // the call that Go must answer
	char text[512], path[1024], value[64];
};

// The index of a Table: the number of its files, and a Bloom filter of their inode
// numbers. Each file sets one bit, which other files may share. Bits are never cleared.
// Other threads change the index at any time, so every access to it must be atomic.
enum { SHALE_RECORDED_BITS = 1 << 18 };

struct shale_recorded_table {
	int64_t size;
	uint64_t bits[SHALE_RECORDED_BITS / 64];
};

// shale_recorded_serve answers calls until Go must answer one. Then it returns 0, and
// s->call is that call. It returns -1 if no process is left, and an errno if it cannot
// receive or answer a call.
int shale_recorded_serve(struct shale_recorded *s, const struct shale_recorded_table *table);

// shale_recorded_bit returns the number of the bit for an inode number in the index.
uint32_t shale_recorded_bit(uint64_t ino);

// shale_recorded_parse parses a record of the form uid:gid:mode:file or uid:gid:mode:dir,
// and ignores the mode. It returns 0 for any other value, for example the record of a
// device. Then Go must parse the value.
int shale_recorded_parse(const char *value, long size, uint32_t *uid, uint32_t *gid);

#endif
