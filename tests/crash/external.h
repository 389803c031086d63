/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files beside the disk that are only read, with contents that never change: what external clones
 * of blobs stand on. Sector i of a file is "write" `external_content()` of place i (sectors.h).
 */
#ifndef KVASIR_CRASH_EXTERNAL_H
#define KVASIR_CRASH_EXTERNAL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define EXTERNALS 2u /* "/external0", ... */

/** Which one has this path of `len` bytes; -1: none. */
int external_of(const char *path, size_t len);
const char *external_path(unsigned which);
/** One ends within a cluster of the blobs, one beyond the longest of them. */
uint32_t external_sectors(unsigned which);
uint32_t external_content(unsigned which);
/** What the sector shows: the content, or 0 (zeroes) beyond the end. */
uint32_t external_sector(unsigned which, uint32_t sector);
/** As disk_read(), and failing as its reads do. */
int external_read(unsigned which, uint64_t off, const struct iovec *iov, unsigned iovcnt);

#endif
