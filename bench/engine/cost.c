/* SPDX-License-Identifier: Apache-2.0 */
/* What the process has used: CPU time of all its threads, bytes from and to the disk, memory. */
#include "engine.h"

#include <ftw.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static uint64_t ns_of(struct timeval tv)
{
    return (uint64_t)tv.tv_sec * NS_PER_S + (uint64_t)tv.tv_usec * NS_PER_US;
}

void cost_now(struct bench *b, struct cost *out)
{
    FILE *f = fopen("/proc/self/io", "r");
    struct rusage ru;
    char line[128];

    *out = (struct cost){.at_ns = bench_now_ns()};
    getrusage(RUSAGE_SELF, &ru);
    out->user_ns = ns_of(ru.ru_utime);
    out->sys_ns = ns_of(ru.ru_stime);
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        sscanf(line, "read_bytes: %lu", &out->read_bytes);
        sscanf(line, "write_bytes: %lu", &out->write_bytes);
    }
    if (f != NULL)
        fclose(f);
    if (b->state != NULL && b->engine->counters != NULL)
        b->engine->counters(b, &out->counted);
}

/* Memory of the process itself: pages of mapped files belong to the page cache. */
uint64_t cost_rss_bytes(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    unsigned long kib = 0;
    char line[128];

    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        sscanf(line, "RssAnon: %lu kB", &kib);
    if (f != NULL)
        fclose(f);
    return kib * KIB;
}

static uint64_t disk_bytes;

static int add_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    disk_bytes += (uint64_t)st->st_blocks * 512;
    return 0;
}

uint64_t cost_disk_bytes(const char *dir)
{
    disk_bytes = 0;
    nftw(dir, add_file, 16, FTW_PHYS);
    return disk_bytes;
}
