/* SPDX-License-Identifier: Apache-2.0 */
#include "own.h"

#include "base/must.h"
#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t count, fail_at;
static bool failed;

/* Whether this allocation is the one that fails. */
static bool fails(void)
{
    if (++count != fail_at)
        return false;
    failed = true;
    errno = ENOMEM;
    return true;
}

void own_fail(uint64_t nth)
{
    count = 0;
    fail_at = nth;
    failed = false;
}

uint64_t own_count(void)
{
    return count;
}

bool own_failed(void)
{
    return failed;
}

#if defined(__SANITIZE_ADDRESS__)

/* The sanitizer has an allocator of its own. The linker leads the calls of our objects here first
 * (--wrap, see meson.build); those of libraries go past, so that blocks cannot be counted. */
void *__real_malloc(size_t len);
void *__real_calloc(size_t n, size_t each);
void *__real_realloc(void *p, size_t len);
void *__real_aligned_alloc(size_t align, size_t len);
void *__wrap_malloc(size_t len);
void *__wrap_calloc(size_t n, size_t each);
void *__wrap_realloc(void *p, size_t len);
void *__wrap_aligned_alloc(size_t align, size_t len);

void *__wrap_malloc(size_t len)
{
    return fails() ? NULL : __real_malloc(len);
}

void *__wrap_calloc(size_t n, size_t each)
{
    return fails() ? NULL : __real_calloc(n, each);
}

void *__wrap_realloc(void *p, size_t len)
{
    return fails() ? NULL : __real_realloc(p, len);
}

void *__wrap_aligned_alloc(size_t align, size_t len)
{
    return fails() ? NULL : __real_aligned_alloc(align, len);
}

void *own_alloc(size_t len)
{
    void *p = __real_calloc(1, len + 1);

    must(p != NULL);
    return p;
}

void *own_align(size_t len)
{
    void *p = __real_aligned_alloc(4096, round_up_u64(len + 1, 4096));

    must(p != NULL);
    return p;
}

void *own_realloc(void *p, size_t len)
{
    p = __real_realloc(p, len);
    must(p != NULL);
    return p;
}

void own_free(void *p)
{
    free(p);
}

int64_t own_live(void)
{
    return 0;
}

#else

/* The C library's own, which these stand in front of. */
void *__libc_malloc(size_t len);
void *__libc_calloc(size_t n, size_t each);
void *__libc_realloc(void *p, size_t len);
void *__libc_memalign(size_t align, size_t len);
void __libc_free(void *p);

static int64_t live;

#define SHOWN __attribute__((visibility("default")))

SHOWN void *malloc(size_t len)
{
    void *p = fails() ? NULL : __libc_malloc(len);

    live += p != NULL;
    return p;
}

SHOWN void *calloc(size_t n, size_t each)
{
    void *p = fails() ? NULL : __libc_calloc(n, each);

    live += p != NULL;
    return p;
}

SHOWN void *realloc(void *old, size_t len)
{
    void *p = fails() ? NULL : __libc_realloc(old, len);

    live += old == NULL && p != NULL;
    live -= old != NULL && p == NULL && len == 0;
    return p;
}

SHOWN void *aligned_alloc(size_t align, size_t len)
{
    void *p = fails() ? NULL : __libc_memalign(align, len);

    live += p != NULL;
    return p;
}

SHOWN int posix_memalign(void **out, size_t align, size_t len)
{
    void *p = aligned_alloc(align, len);

    if (p == NULL)
        return ENOMEM;
    *out = p;
    return 0;
}

SHOWN void free(void *p)
{
    live -= p != NULL;
    __libc_free(p);
}

void *own_alloc(size_t len)
{
    void *p = __libc_calloc(1, len + 1);

    must(p != NULL);
    return p;
}

void *own_align(size_t len)
{
    void *p = __libc_memalign(4096, len + 1);

    must(p != NULL);
    return p;
}

void *own_realloc(void *p, size_t len)
{
    p = __libc_realloc(p, len);
    must(p != NULL);
    return p;
}

void own_free(void *p)
{
    __libc_free(p);
}

int64_t own_live(void)
{
    return live;
}

#endif
