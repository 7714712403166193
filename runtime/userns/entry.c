// Runs before the Go runtime, because unshare(CLONE_NEWUSER) is refused to a
// process with more than one thread.

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

// split cuts text at spaces, in place, and appends the words to argv.
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

// write_map writes the lines of map, separated by commas, in one write(2) as
// the kernel demands.
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

// maps are what the helper works with.
struct maps {
	const char *utool, *gtool, *umap, *gmap;
};

// helper stays in the namespaces the process came from and maps its ids. An
// empty report means success.
static void helper(pid_t target, int go, int report, const struct maps *m)
{
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	// The end of file, without a byte, means that the process gave up.
	if (read(go, &byte, 1) != 1)
		_exit(0);
	if (!m->umap || !m->gmap) {
		dprintf(report, "no map given");
		_exit(1);
	}
	if (m->utool && m->gtool) {
		// Together: each costs a program start.
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
	// The map is awaited by Go: the runtime starts in the meantime.
	close(go[1]);
}

// requested does what Go asked for before it executed the program again.
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

// early saves a start of the program where it is plain what Go would ask for.
// What does not succeed is left to Go, which has words for it.
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

__attribute__((constructor)) static void shale_userns_enter(int argc, char **argv)
{
	const char *how = getenv("_SHALE_USERNS");

	if (how)
		requested(how);
	else if (shale_userns_wanted && shale_userns_wanted(argc, argv))
		early();
}
