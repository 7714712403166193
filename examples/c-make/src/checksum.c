#include "checksum.h"

#include <zlib.h>

long checksum(FILE *file)
{
	unsigned char block[65536];
	unsigned long crc = crc32(0, Z_NULL, 0);
	size_t n;

	while ((n = fread(block, 1, sizeof block, file)) > 0)
		crc = crc32(crc, block, (unsigned int)n);
	return ferror(file) ? -1 : (long)crc;
}
