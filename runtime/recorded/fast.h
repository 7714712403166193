#ifndef SHALE_RECORDED_FAST_H
#define SHALE_RECORDED_FAST_H

#include <stdint.h>

// A system call that is handed over, struct seccomp_notif.
struct shale_recorded_call {
	uint64_t id;
	uint32_t pid;
	uint32_t flags;
	int32_t nr;
	uint32_t arch;
	uint64_t ip;
	uint64_t args[6];
};

// What a thread believes to be, as far as it matters here.
struct shale_recorded_creds {
	uint32_t uid, euid, fsuid;
	uint32_t gid, egid, fsgid;
	int32_t known; // 0: only Go can tell
	int32_t stays; // a program without set-id bits changes nothing of it
};

enum { SHALE_RECORDED_CREDS = 256, SHALE_RECORDED_CALLS = 512 };

// What C and Go share of a supervisor; each uses it while the other waits.
struct shale_recorded {
	int32_t listener;
	int32_t wait;    // poll before receiving (Linux before 6.11)
	int32_t running; // the step runs: else all calls are Go's
	int32_t moved;   // a process changed its root directory
	int32_t tagged;  // threads may have other credentials than the first
	int32_t slack;   // the timer slack of those who have the first
	struct shale_recorded_creds creds[SHALE_RECORDED_CREDS]; // the first, then those of each tag
	uint64_t count[SHALE_RECORDED_CALLS];
	struct shale_recorded_call call; // the one that Go answers
	char text[512], path[1024], value[64];
};

// What is known of the files in a Table, which other threads add to: how many
// there are, and a set of bits with one at least for each.
enum { SHALE_RECORDED_BITS = 1 << 18 };

struct shale_recorded_table {
	int64_t size;
	uint64_t bits[SHALE_RECORDED_BITS / 64];
};

// shale_recorded_serve answers calls until there is one that Go must answer, in
// s->call: the result is 0. It is -1 when no process is left, and else an errno of
// the listener.
int shale_recorded_serve(struct shale_recorded *s, const struct shale_recorded_table *table);

// shale_recorded_bit is the bit that stands for an inode number in a table.
uint32_t shale_recorded_bit(uint64_t ino);

// shale_recorded_parse reads a record that stands for no device: two numbers and
// what follows them. It tells whether it is one.
int shale_recorded_parse(const char *value, long size, uint32_t *uid, uint32_t *gid);

#endif
