#ifndef SHALE_USERNS_ENTRY_H
#define SHALE_USERNS_ENTRY_H

// What happened before Go started.
struct shale_userns_state {
	int entered;      // the environment asked for an entry
	int error;        // errno of the step that failed, or 0
	const char *step; // its name
	int status_fd;    // where the helper reports, or -1
	int helper;       // its process id, or 0
};

extern struct shale_userns_state shale_userns;

#endif
