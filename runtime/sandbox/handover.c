// The constructor in this file runs before the Go runtime and before libcontainer's
// nsexec. The program that it executes runs nsexec itself, from the beginning.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "handover.h"

extern char **environ;

// argument reports whether word is the only argument of the process. It returns 0 if the
// command line cannot be read.
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

// shale_handover runs in the first process of a container. It executes the small program
// that the parent process, the builder, holds at the file descriptor SHALE_RUNNER_FD. If
// this fails, the process continues with its present program. With the priority 101, the
// function runs before constructors that have no priority.
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
	// The program is in a sealed memfd. No other kind of file can have the seal
	// F_SEAL_WRITE (fcntl(2)), so another file at that number is not executed.
	seals = fcntl(fd, F_GET_SEALS);
	if (seals >= 0 && (seals & F_SEAL_WRITE))
		syscall(SYS_execveat, fd, "", argv, environ, 0x1000 /* AT_EMPTY_PATH */);
	close(fd);
}
