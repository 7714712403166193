/* crc prints the CRC-32 of each file, or of standard input. */
#include "checksum.h"

#include <errno.h>
#include <string.h>

static int print(const char *name, FILE *file)
{
	long crc = checksum(file);

	if (crc < 0) {
		fprintf(stderr, "crc: read %s: %s\n", name, strerror(errno));
		return 1;
	}
	printf("%08lx  %s\n", crc, name);
	return 0;
}

int main(int argc, char **argv)
{
	int failed = 0;

	if (argc < 2)
		return print("-", stdin);
	for (int i = 1; i < argc; i++) {
		FILE *file = fopen(argv[i], "rb");

		if (!file) {
			fprintf(stderr, "crc: open %s: %s\n", argv[i], strerror(errno));
			failed = 1;
			continue;
		}
		failed |= print(argv[i], file);
		fclose(file);
	}
	return failed;
}
