/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One fault at a time: for each kind and each n, the nth operation of that kind fails, in a short
 * workload that goes on as far as it can. Nothing may crash, leak or lie: afterwards the store is
 * opened again as it is, and as a power cut would leave it, and has what was acknowledged.
 */
#include "faults.h"
#include "jobs.h"
#include "own.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct kind {
    const char *name;
    unsigned kinds;
    int rc;
    bool lasting;
} kinds[] = {
    {"read: EIO", DISK_FAULT_READ, -EIO, false},
    {"read: short", DISK_FAULT_READ, 0, false},
    {"reads from here on: EIO", DISK_FAULT_READ, -EIO, true},
    {"write: EIO", DISK_FAULT_WRITE, -EIO, false},
    {"write: ENOSPC", DISK_FAULT_WRITE, -ENOSPC, false},
    {"write: short", DISK_FAULT_WRITE, 0, false},
    {"writes from here on: EIO", DISK_FAULT_WRITE, -EIO, true},
    {"flush: EIO", DISK_FAULT_FLUSH, -EIO, false},
    {"flush: ENOSPC", DISK_FAULT_FLUSH, -ENOSPC, false},
    {"hole: EIO", DISK_FAULT_ZERO, -EIO, false},
    {"hole: ENOSPC", DISK_FAULT_ZERO, -ENOSPC, false},
    {"allocation", 0, 0, false},
};
#define ALLOCATION (ARRAY_LEN(kinds) - 1)

struct report {
    uint32_t kind, nth; /* being tried */
    uint64_t tried, reached, failures;
    bool over;
};

struct job {
    const struct subject *s;
    const struct faults_opts *o;
    struct report *r;
    struct disk_arena session;
    unsigned idx, n; /* it takes each nth with nth % n == idx */
    unsigned from_kind;
    uint32_t from_nth;
};

static void failed(struct job *j, const char *what, const char *why)
{
    printf("crash: %s: seed %llu, %s number %u fails, %s: %s\n"
           "    replay: crash faults %s %s--seed %llu --kind %u --nth %u\n",
           j->s->name, (unsigned long long)j->o->seed, kinds[j->r->kind].name, j->r->nth, what, why,
           j->s->name, walk_more, (unsigned long long)j->o->seed, j->r->kind, j->r->nth);
    if (j->o->verbose && j->s->show != NULL)
        j->s->show();
    fflush(stdout);
    j->r->failures++;
}

static bool look_at(struct job *j, const char *what)
{
    struct look l = {.close = true, .go_on = j->r->nth % 4 == 0};
    struct disk_boot b = {.fn = j->s->look, .arg = &l, .reactors = j->s->reactors};
    int rc;

    l.dice = dice_of(j->o->seed, j->r->nth);
    rc = disk_boot(&b);
    if (b.stuck)
        look_bad(&l, "the look did not end");
    else if (rc < 0)
        look_bad(&l, "the look ended with %d (%s)", rc, strerror(-rc));
    if (rc < 0)
        failed(j, what, l.why);
    return rc == 0;
}

/* As the disk is, and as a power cut would leave it: then what a failed flush lost is lost. */
static void look_back(struct job *j, uint32_t mark)
{
    struct disk_log log = disk_log_take();
    struct dice dice = dice_of(j->o->seed, j->r->nth);
    uint32_t after = disk_mark();
    struct disk_cut c;
    char how[64];

    j->s->model_begin();
    j->s->model_to(UINT32_MAX);
    if (j->o->verbose)
        disk_log_show(&log, 40);
    if (look_at(j, "opened again")) {
        disk_back(after);
        disk_back(mark);
        disk_cut_begin(&c, &log);
        c.undoable = true;
        disk_cut_to(&c, log.ticks);
        disk_cut_image(&c, &dice, how);
        disk_cut_end(&c);
        look_at(j, how);
    }
    own_free(log.op);
    own_free(log.event);
}

/* Returns whether the fault was reached: else there are no more of this kind. */
static bool try_one(struct job *j, unsigned kind, uint32_t nth)
{
    uint64_t seed = j->o->seed;
    struct disk_boot b = {.fn = j->s->trouble, .arg = &seed, .reactors = j->s->reactors};
    uint32_t mark = disk_mark();
    uint64_t reads;
    int64_t live;
    bool reached;
    int rc;

    j->r->kind = kind;
    j->r->nth = nth;
    j->session.used = 0;
    disk_log_begin(&disk.log);
    disk.dice = dice_of(seed, 5);
    reads = disk.reads;
    live = own_live();
    disk.fault = (struct disk_fault){.kinds = kinds[kind].kinds,
                                     .nth = nth,
                                     .rc = kinds[kind].rc,
                                     .lasting = kinds[kind].lasting};
    own_fail(kind == ALLOCATION ? nth : 0);
    rc = disk_boot(&b);
    reached = kind == ALLOCATION ? own_failed() : disk.fault.hits > 0;
    own_fail(0);
    disk.fault = (struct disk_fault){.kinds = 0};
    if (rc == -ENOMEM && kind == ALLOCATION && disk.log.ticks + disk.reads == reads)
        return reached; /* not even a runtime */
    if (b.stuck || rc < 0)
        failed(j, "the workload", b.stuck ? "hangs" : "lies, see above");
    else if (own_live() != live)
        failed(j, "the workload", "leaks memory");
    if (reached && rc == 0 && !b.stuck)
        look_back(j, mark);
    disk_back(mark);
    j->r->tried++;
    j->r->reached += reached;
    return reached;
}

static bool wanted(const struct job *j, unsigned kind)
{
    if (j->o->nth != 0)
        return kind == j->o->kind;
    return kind == ALLOCATION ? j->o->memory : j->o->disk;
}

/* The first run makes what lives as long as the program does. */
static void warm_up(struct job *j)
{
    uint64_t seed = j->o->seed;
    struct disk_boot b = {.fn = j->s->trouble, .arg = &seed, .reactors = j->s->reactors};

    disk_log_begin(&disk.log);
    disk_boot(&b);
    disk_back(0);
}

static void job_run(void *job)
{
    struct job *j = job;

    walk_sessions(&j->session);
    warm_up(j);
    for (unsigned kind = j->from_kind; kind < ARRAY_LEN(kinds); kind++) {
        uint32_t nth = kind == j->from_kind ? j->from_nth : 1;

        if (!wanted(j, kind))
            continue;
        if (j->o->nth != 0) {
            try_one(j, kind, j->o->nth);
            continue;
        }
        for (; j->r->failures < 20; nth += j->o->stride)
            if (nth / j->o->stride % j->n == j->idx && !try_one(j, kind, nth))
                break;
    }
    j->r->over = true;
}

/* One that died tells by its report where it was. */
static bool job_ended(void *job, int status)
{
    char why[JOBS_ENDED_TEXT];
    struct job *j = job;

    if (!j->r->over) {
        failed(j, "something", jobs_ended_text(status, why));
        j->from_kind = j->r->kind;
        j->from_nth = j->r->nth + 1;
    }
    return !j->r->over && j->r->failures < 20 && j->o->nth == 0;
}

int faults(const struct subject *s, const struct faults_opts *o)
{
    unsigned n = o->nth != 0 ? 1 : MIN(MAX(1u, o->jobs), JOBS_MAX);
    struct report *r = mmap(NULL, sizeof(*r) * JOBS_MAX, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct job jobs[JOBS_MAX];
    char why[WHY_MAX] = "";
    uint64_t tried = 0, reached = 0, failures = 0;

    must(r != MAP_FAILED);
    if (walk_format(s, o->seed, why) < 0) {
        printf("crash: %s: %s\n", s->name, why);
        return -EILSEQ;
    }
    for (unsigned i = 0; i < n; i++)
        jobs[i] = (struct job){.s = s, .o = o, .r = &r[i], .idx = i, .n = n, .from_nth = 1};
    jobs_run(jobs, sizeof(jobs[0]), n, job_run, job_ended);
    for (unsigned i = 0; i < n; i++) {
        tried += r[i].tried;
        reached += r[i].reached;
        failures += r[i].failures;
    }
    munmap(r, sizeof(*r) * JOBS_MAX);
    printf("crash: faults of %s: seed %llu: %llu runs, %llu with a fault, %llu failures\n", s->name,
           (unsigned long long)o->seed, (unsigned long long)tried, (unsigned long long)reached,
           (unsigned long long)failures);
    return failures > 0 || reached == 0 ? -EILSEQ : 0;
}
