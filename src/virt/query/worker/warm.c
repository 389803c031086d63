/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fork begins with empty tables for the pages of files, and touching a page of the engine or
 * fresh memory for the first time costs more than most of what a small query does. A worker waits
 * for its query, so it does that ahead.
 */
#include "virt/query/worker/worker.h"

#include <link.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE /* since Linux 5.14; before, madvise() says no and nothing is lost */
#define MADV_POPULATE_WRITE 23
#endif

#define HEAP_BYTES (1u << 20)        /* what finding out the columns of a CSV object takes */
#define FROM_KERNEL_BYTES (8u << 20) /* an allocation that large comes and goes as pages */
#define PAGE_BYTES ((uintptr_t)4096)
#define HUGE_BYTES ((uintptr_t)2 << 20)

void qw_warm_begin(void)
{
    mallopt(M_MMAP_THRESHOLD, FROM_KERNEL_BYTES);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    mallopt(M_TOP_PAD, HEAP_BYTES);
    mallopt(M_ARENA_MAX, 1);
}

/* The part of a mapping that huge pages can hold is copied into some, which take its place: a
 * fork then shares tables of a few entries. Where that cannot be, all stays as it is. */
static void make_huge(uintptr_t start, uintptr_t end)
{
    uintptr_t from = (start + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1), to = end & ~(HUGE_BYTES - 1);
    size_t len = to - from;
    char *p, *copy;

    if (to <= from)
        return;
    p = mmap(NULL, len + HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return;
    copy = (char *)(((uintptr_t)p + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1));
    if (madvise(copy, len, MADV_HUGEPAGE) == 0) {
        memcpy(copy, (void *)from, len);
        if (mprotect(copy, len, PROT_READ | PROT_EXEC) == 0)
            mremap(copy, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)from);
    }
    /* What was not moved: the ends, or all of it. */
    munmap(p, len + HUGE_BYTES);
}

/* The engine gives memory back when a limit changes and when it has freed much. A worker lives for
 * one query, and would fault in again what it has been made warm with. */
__attribute__((visibility("default"))) int malloc_trim(size_t pad)
{
    (void)pad;
    return 0;
}

static int find_code(struct dl_phdr_info *info, size_t size, void *arg)
{
    uintptr_t *range = arg;

    (void)size;
    if (!strstr(info->dlpi_name, "libduckdb"))
        return 0;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];

        if (p->p_type == PT_LOAD && (p->p_flags & PF_X) && !(p->p_flags & PF_W)) {
            range[0] = info->dlpi_addr + p->p_vaddr;
            range[1] = range[0] + p->p_memsz;
        }
    }
    return 1;
}

void qw_warm_engine(void)
{
    uintptr_t range[2] = {0, 0};

    dl_iterate_phdr(find_code, range);
    make_huge(range[0], range[1]);
}

void qw_warm_worker(void)
{
    char *p = malloc(HEAP_BYTES);
    uintptr_t start = ((uintptr_t)p + PAGE_BYTES) & ~(PAGE_BYTES - 1);

    if (p)
        madvise((void *)start, (uintptr_t)p + HEAP_BYTES - start, MADV_POPULATE_WRITE);
    free(p);
}
