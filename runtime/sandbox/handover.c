// Runs before the Go runtime, and before libcontainer's nsexec, which the
// program executed here repeats from its beginning.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "handover.h"

extern char **environ;

// argument tells whether the process was called with word as its only argument.
static int argument(const char *word)
{
	char line[4096];
	ssize_t n;
	char *first;
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	n = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	line[n] = '\0';
	first = memchr(line, '\0', (size_t)n);
	return first && first + 1 < line + n && strcmp(first + 1, word) == 0 &&
	       first + 1 + strlen(word) + 1 >= line + n;
}

// A container's first process goes on as the small program that the process that
// started it holds at a descriptor agreed upon. Where that does not work it stays
// the program it is.
__attribute__((constructor(101))) static void shale_handover(void)
{
	char path[64];
	char *argv[] = {"shale", "init", NULL};
	int fd, seals;

	if (!getenv("_LIBCONTAINER_INITPIPE") || !argument("init"))
		return;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getppid(), SHALE_RUNNER_FD);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	// Nothing but a sealed memfd can be it (fcntl(2)).
	seals = fcntl(fd, F_GET_SEALS);
	if (seals >= 0 && (seals & F_SEAL_WRITE))
		syscall(SYS_execveat, fd, "", argv, environ, 0x1000 /* AT_EMPTY_PATH */);
	close(fd);
}
