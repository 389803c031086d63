/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bit rot: one byte of a store that was closed in good order is changed, anywhere the store has
 * written; what is read afterwards is right, or an error. All bytes of small structures at the
 * start, samples elsewhere.
 */
#include "faults.h"
#include "jobs.h"
#include "own.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct report {
    uint64_t at;   /* being tried */
    uint64_t next; /* the one after it */
    uint64_t tried, found, harmless, failures;
    bool over;
};

struct job {
    const struct subject *s;
    const struct rot_opts *o;
    struct report *r;
    struct disk_arena session;
    const uint64_t *place; /* what is flipped: byte * 256 + mask */
    uint64_t from, to;
};

static void failed(struct job *j, const char *why)
{
    printf("crash: rot of %s: seed %llu, byte %llu changed by %02llx: %s\n"
           "    replay: crash rot %s %s--seed %llu --at %llu\n",
           j->s->name, (unsigned long long)j->o->seed, (unsigned long long)(j->r->at >> 8),
           (unsigned long long)(j->r->at & 255), why, j->s->name, walk_more,
           (unsigned long long)j->o->seed, (unsigned long long)j->r->at);
    fflush(stdout);
    j->r->failures++;
}

static void flip(struct job *j, uint64_t place)
{
    struct look l = {.close = true, .tolerant = true, .go_on = place % 5 == 0};
    struct disk_boot b = {.fn = j->s->look, .arg = &l, .reactors = j->s->reactors};
    uint8_t byte = disk.mem[place >> 8] ^ (uint8_t)place;
    int rc;

    j->r->at = place;
    j->session.used = 0;
    disk_log_begin(&disk.log);
    disk.dice = dice_of(j->o->seed, 9);
    l.dice = dice_of(j->o->seed, place);
    disk_poke(place >> 8, &byte, 1);
    rc = disk_boot(&b);
    if (b.stuck)
        failed(j, "the look hangs");
    else if (rc < 0)
        failed(j, l.why);
    else if (l.errors > 0)
        j->r->found++;
    else
        j->r->harmless++;
    j->r->tried++;
    disk_back(0);
    if (j->o->verbose)
        printf("crash: rot: byte %llu, mask %02llx: %s\n", (unsigned long long)(place >> 8),
               (unsigned long long)(place & 255),
               rc < 0         ? "lie"
               : l.errors > 0 ? "found"
                              : "harmless");
}

static void job_run(void *job)
{
    struct job *j = job;

    walk_sessions(&j->session);
    for (uint64_t i = j->from; i < j->to && j->r->failures < 10; i++) {
        j->r->next = i + 1;
        flip(j, j->place[i]);
    }
    j->r->over = true;
}

/* Where the store has written: every byte of pages that are mostly zeroes, some of the others. */
static uint64_t *choose(const struct subject *s, const struct rot_opts *o, uint64_t *out_n)
{
    uint64_t *place = own_alloc(o->flips * sizeof(*place)), n = 0, used = 0;
    uint32_t *page = own_alloc(disk.bytes / 512 * sizeof(*page));
    struct dice dice = dice_of(o->seed, 8);

    uint64_t end = s->data_unchecked ? disk.whole[0].len : disk.bytes;

    for (uint64_t i = 0; i < end / 512; i++) {
        bool zero = true;

        for (unsigned k = 0; k < 512; k++)
            zero &= disk.mem[i * 512 + k] == 0;
        if (!zero)
            page[used++] = (uint32_t)i;
    }
    while (n < o->flips && used > 0) {
        /* Half of them near the start, where the structures are. */
        uint64_t i = dice_one_in(&dice, 2) ? dice_below(&dice, used)
                                           : dice_below(&dice, 1 + dice_below(&dice, used));
        uint64_t at = (uint64_t)page[i] * 512 + dice_below(&dice, 512);
        uint64_t mask =
            dice_one_in(&dice, 2) ? 1ull << dice_below(&dice, 8) : dice_between(&dice, 1, 255);

        place[n++] = at << 8 | mask;
    }
    own_free(page);
    *out_n = n;
    return place;
}

/* One that died tells by its report where it was. */
static bool job_ended(void *job, int status)
{
    struct job *j = job;

    (void)status;
    if (!j->r->over) {
        failed(j, "the program ended, see above");
        j->from = j->r->next;
    }
    return !j->r->over && j->r->failures < 10 && j->from < j->to;
}

/* The short workload of the faults, closed in good order. */
static int prepare(const struct subject *s, uint64_t seed, char *why)
{
    struct disk_boot b = {.fn = s->trouble, .arg = &seed, .reactors = s->reactors};

    if (walk_format(s, seed, why) < 0)
        return -EILSEQ;
    disk.dice = dice_of(seed, 5);
    if (disk_boot(&b) < 0 || b.stuck) {
        snprintf(why, WHY_MAX, "the workload fails");
        return -EILSEQ;
    }
    s->model_begin();
    s->model_to(UINT32_MAX);
    return 0;
}

int rot(const struct subject *s, const struct rot_opts *o)
{
    unsigned n = o->at != UINT64_MAX ? 1 : MIN(MAX(1u, o->jobs), JOBS_MAX);
    struct report *r = mmap(NULL, sizeof(*r) * JOBS_MAX, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct job jobs[JOBS_MAX];
    char why[WHY_MAX] = "";
    uint64_t nplaces = 1, *place, found = 0, harmless = 0, failures = 0;

    must(r != MAP_FAILED);
    if (prepare(s, o->seed, why) < 0) {
        printf("crash: rot of %s: %s\n", s->name, why);
        return -EILSEQ;
    }
    place = choose(s, o, &nplaces);
    if (o->at != UINT64_MAX) {
        place[0] = o->at;
        nplaces = 1;
    }
    for (unsigned i = 0; i < n; i++)
        jobs[i] = (struct job){.s = s,
                               .o = o,
                               .r = &r[i],
                               .place = place,
                               .from = nplaces * i / n,
                               .to = nplaces * (i + 1) / n};
    jobs_run(jobs, sizeof(jobs[0]), n, job_run, job_ended);
    for (unsigned i = 0; i < n; i++) {
        found += r[i].found;
        harmless += r[i].harmless;
        failures += r[i].failures;
    }
    munmap(r, sizeof(*r) * JOBS_MAX);
    own_free(place);
    printf("crash: rot of %s: seed %llu: %llu flips, %llu found, %llu harmless, %llu failures\n",
           s->name, (unsigned long long)o->seed, (unsigned long long)nplaces,
           (unsigned long long)found, (unsigned long long)harmless, (unsigned long long)failures);
    return failures > 0 || found == 0 ? -EILSEQ : 0;
}
