#include <stdlib.h>
#include <string.h>

#include "early.h"

// Frequent commands that enter the namespaces in any case. Before that, they do nothing
// that depends on whether the process is inside. doctor must not be here, because it
// checks the machine from outside. Other commands that are missing here, for example
// inspect, only take longer to start.
static const char *const commands[] = {
	"build", "history", "images", "load", "pull", "push", "rmi", "run", "save", "tag",
};

// Flags with which build may enter in another way, or may not enter. Words that only
// begin with one of them count too, because the value may follow after "=".
static const char *const unusual[] = {"--call", "--check", "--isolation", "--print"};

static int starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static int is_command(const char *word)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (strcmp(word, commands[i]) == 0)
			return 1;
	return 0;
}

// global_flag returns the number of arguments that a global flag takes up, including the
// flag itself. It returns 0 for a flag that is not known here.
static int global_flag(const char *arg)
{
	static const char *const valued[] = {"--root", "--runroot", "--log-level"};

	if (strcmp(arg, "--debug") == 0 || strcmp(arg, "-D") == 0)
		return 1;
	for (size_t i = 0; i < sizeof(valued) / sizeof(*valued); i++) {
		if (!starts_with(arg, valued[i]))
			continue;
		if (arg[strlen(valued[i])] == '=')
			return 1;
		if (arg[strlen(valued[i])] == '\0')
			return 2;
	}
	return 0;
}

int shale_userns_wanted(int argc, char **argv)
{
	const char *isolation = getenv("SHALE_ISOLATION");
	int i = 1;

	if (isolation && *isolation)
		return 0;
	while (i < argc && argv[i][0] == '-') {
		int n = global_flag(argv[i]);

		if (n == 0)
			return 0;
		i += n;
	}
	if (i >= argc || !is_command(argv[i]))
		return 0;
	if (strcmp(argv[i], "build") != 0)
		return 1;
	for (i++; i < argc; i++)
		for (size_t j = 0; j < sizeof(unusual) / sizeof(*unusual); j++)
			if (starts_with(argv[i], unusual[j]))
				return 0;
	return 1;
}
