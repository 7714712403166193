#ifndef SHALE_USERNS_ENTRY_H
#define SHALE_USERNS_ENTRY_H

#include <limits.h>
#include <sys/types.h>

// The result of the constructor that runs before Go starts.
struct shale_userns_state {
	int entered;      // the process has entered, or a requested entry has failed
	int early;        // the process has entered without a request from Go
	uid_t uid;        // effective ids outside, valid for an early entry only
	gid_t gid;
	int error;        // errno of the step that failed, or 0
	const char *step; // name of that step
	int status_fd;    // pipe with the report of the helper, or -1
	int helper;       // process id of the helper, or 0
};

extern struct shale_userns_state shale_userns;

// The maps of an early entry as arguments of newuidmap(1), and the paths of newuidmap
// (utool) and newgidmap (gtool), with which the helper writes them.
struct shale_userns_maps {
	char utool[PATH_MAX], gtool[PATH_MAX];
	char umap[64], gmap[64];
};

// shale_userns_plan sets maps to the plan of an early entry, and returns 1. The user must
// be in the file passwd and have exactly one range in each of the files subuid and
// subgid. The tools must be in directories of path. Otherwise it returns 0, and Go makes
// the plan.
int shale_userns_plan(const char *passwd, const char *subuid, const char *subgid, const char *path,
		      uid_t uid, gid_t gid, struct shale_userns_maps *maps);

// shale_userns_wanted reports whether a command line calls Enter in any case, without
// Options.Force. The program may define this function. If it does not, there is no early
// entry.
int shale_userns_wanted(int argc, char **argv) __attribute__((weak));

#endif
