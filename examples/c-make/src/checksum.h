#ifndef CHECKSUM_H
#define CHECKSUM_H

#include <stdio.h>

/* The CRC-32 of all that can be read from file; -1 when reading fails. */
long checksum(FILE *file);

#endif
