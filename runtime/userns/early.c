// This file makes the usual plan of choose (plan.go) without the Go runtime. If a file or
// a value is unusual in any way, the functions here return 0, and Go makes the plan.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "entry.h"

#define LINE 1024
#define FIELDS 8

// next_line reads a line without its newline into line, which must have LINE bytes. It
// returns 1, 0 at the end of the file, or -1 if the line is too long or cannot be read.
static int next_line(FILE *f, char *line)
{
	size_t n;

	if (!fgets(line, LINE, f))
		return ferror(f) ? -1 : 0;
	n = strlen(line);
	if (n > 0 && line[n - 1] == '\n')
		line[n - 1] = '\0';
	else if (!feof(f))
		return -1;
	return 1;
}

// fields splits line at colons, in place, and returns the number of fields. It stops
// after FIELDS fields, which is more than any valid line has.
static int fields(char *line, char **out)
{
	int n = 0;

	for (char *p = line; p && n < FIELDS; n++) {
		out[n] = p;
		p = strchr(p, ':');
		if (p)
			*p++ = '\0';
	}
	return n;
}

// number parses a decimal number of at most 32 bits. It returns 0 if s has any character
// that is not a digit.
static int number(const char *s, uint64_t *out)
{
	uint64_t n = 0;

	if (!*s || strlen(s) > 10)
		return 0;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return 0;
		n = n * 10 + (uint64_t)(*s - '0');
	}
	*out = n;
	return n <= UINT32_MAX;
}

// find_user finds the user with the id uid in a file in the format of passwd(5), and
// copies the name to name, which must have LINE bytes. It returns 0 if there is no such
// user, if the name is empty, or if the name begins with +, - or #.
static int find_user(const char *file, const char *uid, char *name)
{
	char line[LINE], *f[FIELDS];
	int got, found = 0;
	FILE *in = fopen(file, "re");

	if (!in)
		return 0;
	while (!found && (got = next_line(in, line)) > 0) {
		if (fields(line, f) != 7 || strcmp(f[2], uid) != 0)
			continue;
		if (!f[0][0] || strchr("+-#", f[0][0]))
			break;
		strcpy(name, f[0]);
		found = 1;
	}
	fclose(in);
	return found;
}

// find_range finds the range of a user in a file in the format of subuid(5). It writes
// the map as arguments of newuidmap(1): root is mapped to the id own, and the range
// follows from id 1. It returns 0 if the user does not have exactly one range, or if the
// range is invalid or contains own.
static int find_range(const char *file, const char *name, const char *id, uint64_t own, char *map, size_t size)
{
	char line[LINE], *f[FIELDS];
	uint64_t start = 0, count = 0;
	int got, found = 0;
	FILE *in = fopen(file, "re");

	if (!in)
		return 0;
	while ((got = next_line(in, line)) > 0) {
		int n = fields(line, f);

		if (strcmp(f[0], name) != 0 && strcmp(f[0], id) != 0)
			continue;
		if (n != 3 || ++found > 1 || !number(f[1], &start) || !number(f[2], &count)) {
			found = 0;
			break;
		}
	}
	fclose(in);
	if (got != 0 || found != 1 || count == 0 || start + count > UINT32_MAX)
		return 0;
	if (start <= own && own < start + count)
		return 0;
	snprintf(map, size, "0 %llu 1 1 %llu %llu", (unsigned long long)own,
		 (unsigned long long)start, (unsigned long long)count);
	return 1;
}

// find_program finds a program in the directories of path, in the order of execvp(3). It
// returns 0 at a directory that is not absolute, because Go does not accept programs
// there.
static int find_program(const char *path, const char *name, char *out)
{
	while (path && *path) {
		const char *end = strchr(path, ':');
		int n = end ? (int)(end - path) : (int)strlen(path);
		struct stat st;

		if (*path != '/' || snprintf(out, PATH_MAX, "%.*s/%s", n, path, name) >= PATH_MAX)
			return 0;
		if (stat(out, &st) == 0 && S_ISREG(st.st_mode) && access(out, X_OK) == 0)
			return 1;
		path = end ? end + 1 : NULL;
	}
	return 0;
}

int shale_userns_plan(const char *passwd, const char *subuid, const char *subgid, const char *path,
		      uid_t uid, gid_t gid, struct shale_userns_maps *maps)
{
	char name[LINE], id[16];

	snprintf(id, sizeof(id), "%u", (unsigned)uid);
	return find_user(passwd, id, name) &&
	       find_range(subuid, name, id, uid, maps->umap, sizeof(maps->umap)) &&
	       find_range(subgid, name, id, gid, maps->gmap, sizeof(maps->gmap)) &&
	       find_program(path, "newuidmap", maps->utool) &&
	       find_program(path, "newgidmap", maps->gtool);
}
