/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fork begins with empty tables for the pages of files, and touching a page of the engine or
 * fresh memory for the first time costs more than most of what a small query does. A worker waits
 * for its query, so it does that ahead.
 */
#include "virt/query/worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE /* since Linux 5.14; before, madvise() says no and nothing is lost */
#define MADV_POPULATE_READ 22
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

/* --- pages that queries write to and read ----------------------------------------------------- */

#define RANGES_MAX 1024
#define MAPS_BYTES (64u << 10)
#define PRESENT (1ull << 63)
#define OF_A_FILE (1ull << 61)
#define ONLY_OURS (1ull << 56)

/* Those of one scout follow those of the other. While scouts fill it, it is memory in common; then
 * each worker has one of its own, or one could tell another what to do. */
static struct ranges {
    unsigned n[QW_SCOUTS]; /* where those of each end */
    struct range {
        uintptr_t start;
        size_t len;
        int advice;
    } r[RANGES_MAX];
} own, *learned;
static unsigned ranges_done;

static void add_page(unsigned *n, uintptr_t page, int advice)
{
    struct range *last = *n > 0 ? &learned->r[*n - 1] : NULL;

    if (last && last->advice == advice && last->start + last->len == page)
        last->len += PAGE_BYTES;
    else if (*n < RANGES_MAX)
        learned->r[(*n)++] = (struct range){page, PAGE_BYTES, advice};
}

/* What this process has looked at in a mapping of a file, or has as its own in memory that it had
 * in common with the zygote. */
static void look_at_mapping(int pagemap, uintptr_t start, uintptr_t end, unsigned *n)
{
    static uint64_t pages[4096];

    for (uintptr_t at = start; at < end; at += sizeof(pages) / sizeof(pages[0]) * PAGE_BYTES) {
        ssize_t len = syscall(SYS_pread64, pagemap, pages, sizeof(pages), at / PAGE_BYTES * 8);

        for (ssize_t i = 0; i < len / 8 && at + (uintptr_t)i * PAGE_BYTES < end; i++) {
            bool file = pages[i] & OF_A_FILE;

            if ((pages[i] & PRESENT) && (file || (pages[i] & ONLY_OURS)))
                add_page(n, at + (uintptr_t)i * PAGE_BYTES,
                         file ? MADV_POPULATE_READ : MADV_POPULATE_WRITE);
        }
    }
}

static int read_maps(char *text)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    ssize_t n = 1;

    while (fd >= 0 && n > 0 && len + 1 < MAPS_BYTES) {
        n = syscall(SYS_read, fd, text + len, MAPS_BYTES - 1 - len);
        len += n > 0 ? (size_t)n : 0;
    }
    text[len] = 0;
    syscall(SYS_close, fd);
    return len > 0 ? 0 : -1;
}

/* Mappings are private, but for the window and `learned`. */
static void look_at_all(unsigned *n)
{
    static char maps[MAPS_BYTES];
    int pagemap = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    unsigned long start, end;
    char mode[5];

    if (pagemap < 0 || read_maps(maps) < 0)
        return;
    for (char *line = maps; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (sscanf(line, "%lx-%lx %4s", &start, &end, mode) == 3 && mode[0] == 'r' &&
            mode[3] == 'p' && end <= (unsigned long)INTPTR_MAX)
            look_at_mapping(pagemap, start, end, n);
    }
}

static void send_scout(enum qw_scout scout)
{
    unsigned n = scout > 0 ? learned->n[scout - 1] : 0;
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        if (qw_rehearse_scout(scout) == 0)
            look_at_all(&n);
        learned->n[scout] = n;
        _exit(0);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
}

void qw_warm_learn(void)
{
    free(malloc(HEAP_BYTES)); /* of which a worker has its own part, too */
    learned =
        mmap(NULL, sizeof(*learned), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (learned == MAP_FAILED) {
        learned = NULL;
        return;
    }
    for (unsigned i = 0; i < QW_SCOUTS; i++)
        send_scout((enum qw_scout)i);
    memcpy(&own, learned, sizeof(own));
    munmap(learned, sizeof(*learned));
    learned = &own;
}

bool qw_warm_some(enum qw_scout scout)
{
    const struct range *r = learned ? &learned->r[ranges_done] : NULL;

    if (!r || ranges_done >= learned->n[scout])
        return false;
    madvise((void *)r->start, r->len, r->advice);
    ranges_done++;
    return true;
}
