#ifndef SHALE_USERNS_ENTRY_H
#define SHALE_USERNS_ENTRY_H

#include <limits.h>
#include <sys/types.h>

// What happened before Go started.
struct shale_userns_state {
	int entered;      // an entry was made, or the environment asked for one
	int early;        // it was made without asking Go
	uid_t uid;        // who made an early entry
	gid_t gid;
	int error;        // errno of the step that failed, or 0
	const char *step; // its name
	int status_fd;    // where the helper reports, or -1
	int helper;       // its process id, or 0
};

extern struct shale_userns_state shale_userns;

// What the helper maps: with the tools, or itself when there are none.
struct shale_userns_maps {
	char utool[PATH_MAX], gtool[PATH_MAX];
	char umap[64], gmap[64];
};

// shale_userns_plan fills in the maps of a user who is in the file passwd, has
// exactly one range in each of the files subuid and subgid and the tools in a
// directory of path. Everything else is left to Go: the result is 0 then.
int shale_userns_plan(const char *passwd, const char *subuid, const char *subgid, const char *path,
		      uid_t uid, gid_t gid, struct shale_userns_maps *maps);

// shale_userns_wanted is the program's to define: whether a command line is one
// that calls Enter whatever comes of it, with no mode forced. Without a
// definition there are no early entries.
int shale_userns_wanted(int argc, char **argv) __attribute__((weak));

#endif
