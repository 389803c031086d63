/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The harness's own memory, which never fails and is not counted; and the failing and counting of
 * everybody else's. In builds with AddressSanitizer, which has an allocator of its own, only what
 * this project's code allocates can fail, and blocks are not counted.
 */
#ifndef KVASIR_CRASH_OWN_H
#define KVASIR_CRASH_OWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *own_alloc(size_t len);  /* zeroed */
void *own_align(size_t len);  /* to 4096; not zeroed */
void *own_realloc(void *p, size_t len);
void own_free(void *p);

/** The nth allocation from now on fails, once; 0: none. */
void own_fail(uint64_t nth);
/** Allocations since own_fail(), and whether the one was reached. */
uint64_t own_count(void);
bool own_failed(void);
/** How many blocks are allocated and not freed, those of the harness left out. */
int64_t own_live(void);

#endif
