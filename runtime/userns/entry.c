// The constructor in this file runs before the Go runtime starts its threads. A process
// with more than one thread cannot call unshare(CLONE_NEWUSER).

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "entry.h"

struct shale_userns_state shale_userns = {.status_fd = -1};

#define MAX_WORDS 2048

// split splits text at spaces, in place, and appends the words to argv, which has n
// words. It returns the new number of words, or -1 if there are too many.
static int split(char *text, char **argv, int n)
{
	char *save = NULL;

	for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		if (n >= MAX_WORDS - 1)
			return -1;
		argv[n++] = w;
	}
	argv[n] = NULL;
	return n;
}

static pid_t run_tool(const char *tool, pid_t target, const char *map, int out)
{
	static char *argv[MAX_WORDS];
	char pid[16];
	pid_t child = fork();

	if (child != 0)
		return child;
	snprintf(pid, sizeof(pid), "%d", (int)target);
	argv[0] = (char *)tool;
	argv[1] = pid;
	if (split(strdup(map), argv, 2) < 0) {
		dprintf(out, "%s: too many ranges", tool);
		_exit(126);
	}
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	execv(tool, argv);
	dprintf(out, "%s: %s", tool, strerror(errno));
	_exit(127);
}

static int tool_failed(pid_t child, const char *tool, int out)
{
	int ws = 0;

	if (child < 0) {
		dprintf(out, "fork for %s: %s", tool, strerror(errno));
		return 1;
	}
	while (waitpid(child, &ws, 0) < 0) {
		if (errno != EINTR) {
			dprintf(out, "wait for %s: %s", tool, strerror(errno));
			return 1;
		}
	}
	if (WIFEXITED(ws) && WEXITSTATUS(ws) == 0)
		return 0;
	dprintf(out, "\n%s failed\n", tool);
	return 1;
}

// write_map writes an id map to a file of the process target. In map, commas separate the
// lines. The kernel requires a single write(2). If it fails, write_map writes the error
// to out and returns 1.
static int write_map(pid_t target, const char *file, const char *map, int out)
{
	char path[64];
	char *text = strdup(map);
	int fd, failed = 0;
	size_t len = strlen(text);

	for (char *p = text; *p; p++)
		if (*p == ',')
			*p = '\n';
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)target, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len) {
		dprintf(out, "writing %s: %s\n", file, strerror(errno));
		failed = 1;
	}
	if (fd >= 0)
		close(fd);
	free(text);
	return failed;
}

// maps is the input of the helper. The helper uses the tools if both are set. Otherwise
// it writes the maps itself.
struct maps {
	const char *utool, *gtool, *umap, *gmap;
};

// helper runs in a child process, which stays in the original namespaces. It waits for a
// byte from the pipe go, writes the id maps of the process target, and exits. The exit
// status is 0 if it succeeded. Otherwise the error is written to the pipe report.
static void helper(pid_t target, int go, int report, const struct maps *m)
{
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	// End of file without a byte: unshare failed, or the process has ended.
	if (read(go, &byte, 1) != 1)
		_exit(0);
	if (!m->umap || !m->gmap) {
		dprintf(report, "no map given");
		_exit(1);
	}
	if (m->utool && m->gtool) {
		// Start both tools before waiting, so that they run at the same time.
		pid_t u = run_tool(m->utool, target, m->umap, report);
		pid_t g = run_tool(m->gtool, target, m->gmap, report);
		int failed = tool_failed(u, m->utool, report);

		failed |= tool_failed(g, m->gtool, report);
		_exit(failed);
	}
	_exit(write_map(target, "uid_map", m->umap, report) | write_map(target, "gid_map", m->gmap, report));
}

static void fail(const char *step)
{
	shale_userns.error = errno;
	shale_userns.step = step;
}

// with_helper enters a mount namespace and a user namespace. A helper process maps the
// ids of the user namespace.
static void with_helper(const struct maps *m)
{
	int go[2], report[2];
	pid_t self = getpid(), child;

	if (pipe2(go, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0) {
		fail("pipe");
		return;
	}
	child = fork();
	if (child < 0) {
		fail("fork");
		return;
	}
	if (child == 0) {
		close(go[1]);
		close(report[0]);
		helper(self, go[0], report[1], m);
	}
	close(go[0]);
	close(report[1]);
	shale_userns.helper = child;
	shale_userns.status_fd = report[0];
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) {
		fail("unshare");
	} else if (write(go[1], "x", 1) != 1) {
		fail("write");
	}
	// Go waits for the helper (awaitHelper), so that the Go runtime starts in the
	// meantime.
	close(go[1]);
}

// requested enters the namespaces that Go requested in the environment before it executed
// the program again (plan.environ). how is one of these:
//
//	mount   enter only a mount namespace
//	self    also enter a user namespace; Go maps its ids (writeSingle)
//	helper  also enter a user namespace; a helper process maps its ids
static void requested(const char *how)
{
	shale_userns.entered = 1;
	if (strcmp(how, "mount") == 0) {
		if (unshare(CLONE_NEWNS) < 0)
			fail("unshare");
	} else if (strcmp(how, "self") == 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
			fail("unshare");
	} else if (strcmp(how, "helper") == 0) {
		const struct maps m = {
			.utool = getenv("_SHALE_USERNS_NEWUIDMAP"),
			.gtool = getenv("_SHALE_USERNS_NEWGIDMAP"),
			.umap = getenv("_SHALE_USERNS_UIDMAP"),
			.gmap = getenv("_SHALE_USERNS_GIDMAP"),
		};

		with_helper(&m);
	} else {
		errno = EINVAL;
		fail("read request");
	}
}

static int is_admin(void)
{
	struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	return syscall(SYS_capget, &hdr, data) == 0 && data[0].effective & (1U << CAP_SYS_ADMIN);
}

// early enters the namespaces without a request, if Go would request the same entry.
// This avoids a second start of the program. If early fails, Go tries again and returns a
// full error.
static void early(void)
{
	static struct shale_userns_maps found;
	const struct maps m = {
		.utool = found.utool, .gtool = found.gtool, .umap = found.umap, .gmap = found.gmap,
	};

	shale_userns.uid = geteuid();
	shale_userns.gid = getegid();
	if (shale_userns.uid == 0) {
		shale_userns.early = is_admin() && unshare(CLONE_NEWNS) == 0;
		shale_userns.entered = shale_userns.early;
		return;
	}
	if (getuid() != shale_userns.uid || getgid() != shale_userns.gid)
		return;
	if (!shale_userns_plan("/etc/passwd", "/etc/subuid", "/etc/subgid", getenv("PATH"),
			       shale_userns.uid, shale_userns.gid, &found))
		return;
	with_helper(&m);
	if (shale_userns.error) {
		if (shale_userns.helper > 0) {
			close(shale_userns.status_fd);
			waitpid(shale_userns.helper, NULL, 0);
		}
		shale_userns = (struct shale_userns_state){.status_fd = -1};
		return;
	}
	shale_userns.entered = shale_userns.early = 1;
}

// glibc passes the arguments of main to constructors. Other C libraries may not.
__attribute__((constructor)) static void shale_userns_enter(int argc, char **argv)
{
	const char *how = getenv("_SHALE_USERNS");

	if (how)
		requested(how);
	else if (shale_userns_wanted && shale_userns_wanted(argc, argv))
		early();
}
