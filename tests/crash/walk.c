/* SPDX-License-Identifier: Apache-2.0 */
#include "walk.h"
#include "jobs.h"
#include "own.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOG_ARENA_BYTES (4 * GIB)
#define SESSION_ARENA_BYTES (1 * GIB)
#define HOW_MAX 192
#define NESTED_ONE_IN 8
#define GO_ON_ONE_IN 4

/* What a job tells its parent, in memory both have. */
struct report {
    uint32_t cut, image; /* being tried now */
    uint64_t cuts, images, nested, failures, first_found;
    uint64_t since_failure;
    bool over;
};

struct job {
    const struct subject *s;
    const struct walk_opts *o;
    struct report *r;
    struct disk_log *log;
    struct disk_arena session;
    uint32_t from, to; /* ticks, both included */
};

static void failed(struct job *j, const char *how, const char *why)
{
    printf("crash: %s: seed %llu, cut %u of %u, image %u (%s): %s\n"
           "    replay: crash %s %s--disk %llu --seed %llu --cut %u --image %u -v\n",
           j->s->name, (unsigned long long)j->o->seed, j->r->cut, j->log->ticks, j->r->image, how,
           why, j->s->name, walk_more, (unsigned long long)(disk.bytes / MIB),
           (unsigned long long)j->o->seed, j->r->cut, j->r->image);
    fflush(stdout);
    if (j->r->failures++ == 0)
        j->r->first_found = j->r->images + 1;
}

/* --- one image -------------------------------------------------------------------------------- */

static int session(struct job *j, struct look *l, uint32_t cut_at, bool *out_cut)
{
    struct disk_boot b = {.fn = j->s->look,
                          .arg = l,
                          .cut_at = cut_at,
                          .reactors = j->s->reactors,
                          .abandon = !l->close};
    int rc;

    j->session.used = 0;
    disk_log_begin(&disk.log);
    rc = disk_boot(&b);
    *out_cut = b.was_cut;
    if (b.stuck)
        return look_bad(l, "the look did not end: nothing is under way and nothing happens");
    if (rc < 0 && !b.was_cut)
        return look_bad(l, "the look ended with %d (%s)", rc, strerror(-rc));
    return 0;
}

/* The power goes once more while what the first cut left is being opened. Returns whether it did:
 * the image is then what that left. */
static bool crash_again(struct job *j, struct look *l, struct dice *dice, char *how)
{
    uint32_t mark = disk_mark();
    uint32_t at = 1 + (uint32_t)dice_below(dice, 1ull << dice_between(dice, 1, 8));
    struct look again = *l;
    struct disk_cut c;
    struct disk_log log;
    char part[64];
    bool was_cut;

    again.go_on = false;
    if (session(j, &again, at, &was_cut) < 0 || !was_cut) {
        disk_back(mark);
        return false;
    }
    log = disk_log_take();
    disk_back(mark);
    disk_cut_begin(&c, &log);
    c.undoable = true;
    disk_cut_to(&c, at);
    disk_cut_image(&c, dice, part);
    disk_cut_end(&c);
    snprintf(how + strlen(how), HOW_MAX - strlen(how), ", again after %u ticks: %s", at, part);
    own_free(log.op);
    own_free(log.event);
    j->r->nested++;
    return true;
}

static int try_image(struct job *j, struct dice *dice, char *how, char *why)
{
    struct look l = {.go_on = dice_one_in(dice, GO_ON_ONE_IN), .close = dice_one_in(dice, 2)};
    bool was_cut, goes_on = l.go_on;
    int rc;

    l.dice = dice_of(dice_roll(dice), 1);
    disk.dice = dice_of(dice_roll(dice), 2);
    if (dice_one_in(dice, NESTED_ONE_IN))
        crash_again(j, &l, dice, how);
    if (goes_on)
        snprintf(how + strlen(how), HOW_MAX - strlen(how),
                 l.close ? ", goes on" : ", goes on, cut");
    rc = session(j, &l, 0, &was_cut);
    if (rc == 0 && goes_on) {
        l.go_on = false;
        l.after = true;
        rc = session(j, &l, 0, &was_cut);
    }
    snprintf(why, WHY_MAX, "%s", l.why);
    return rc;
}

static void save(const char *path)
{
    FILE *f = fopen(path, "wb");

    if (f == NULL || fwrite(disk.mem, 1, disk.bytes, f) != disk.bytes || fclose(f) != 0)
        printf("crash: %s: %s\n", path, strerror(errno));
}

static void image(struct job *j, struct disk_cut *c, uint32_t number)
{
    struct dice dice = dice_of(j->o->seed ^ (uint64_t)c->tick << 24, number);
    char how[HOW_MAX] = "", why[WHY_MAX] = "";

    j->r->image = number;
    disk_cut_image(c, &dice, how);
    if (j->o->save != NULL)
        save(j->o->save);
    if (try_image(j, &dice, how, why) < 0) {
        failed(j, how, why);
        if (j->o->verbose && j->s->show != NULL)
            j->s->show();
    } else if (j->o->verbose) {
        printf("crash: cut %u, image %u (%s): held\n", c->tick, number, how);
    }
    j->r->images++;
    disk_back(0);
}

/* --- all of them ------------------------------------------------------------------------------ */

static void job_run(void *job)
{
    struct job *j = job;
    struct dice dice = dice_of(j->o->seed, 77);
    struct disk_cut c;
    double each = (double)j->o->images / MAX(1u, j->log->ticks), owed = 0;

    walk_sessions(&j->session);
    disk_cut_begin(&c, j->log);
    j->s->model_begin();
    for (uint32_t tick = 1; tick <= j->to; tick++) {
        unsigned n;

        owed += each * (double)dice_between(&dice, 50, 150) / 100;
        n = (unsigned)owed;
        owed -= n;
        if (tick < j->from)
            continue;
        disk_cut_to(&c, tick);
        j->s->model_to(tick);
        j->r->cut = tick;
        for (unsigned i = 1; i <= MAX(n, j->o->image); i++)
            if (j->o->image == 0 || i == j->o->image)
                image(j, &c, i);
        j->r->cuts++;
        if (j->r->failures >= j->o->failures_max)
            break;
    }
    j->r->over = true;
    disk_cut_end(&c);
}

void walk_sessions(struct disk_arena *session)
{
    static struct disk_arena undo;

    disk_arena_init(session, SESSION_ARENA_BYTES);
    disk.log_arena = session;
    disk_arena_init(&undo, SESSION_ARENA_BYTES);
    disk.undo_arena = &undo;
}

static uint64_t disk_bytes;

char walk_more[WALK_MORE_MAX];

void walk_disk_bytes(uint64_t bytes)
{
    disk_bytes = bytes;
}

int walk_format(const struct subject *s, uint64_t seed, char *why)
{
    struct disk_boot b = {.fn = s->format, .arg = &seed};
    int rc;

    if (disk.mem == NULL)
        disk_init(disk_bytes != 0 ? disk_bytes : s->disk_bytes, s->block_bytes);
    disk.dice = dice_of(seed, 3);
    rc = disk_boot(&b);
    if (rc == 0 && !b.stuck)
        return 0;
    snprintf(why, WHY_MAX, "cannot be formatted: %d (%s)%s", rc, strerror(-rc),
             b.stuck ? ", it hangs" : "");
    return -EILSEQ;
}

int walk_record(const struct subject *s, uint64_t seed, struct disk_log *out_log, char *why)
{
    static struct disk_arena arena;
    struct disk_boot b = {.fn = s->work, .arg = &seed, .reactors = s->reactors};
    uint8_t *before;
    int rc;

    if (arena.base == NULL)
        disk_arena_init(&arena, LOG_ARENA_BYTES);
    if (walk_format(s, seed, why) < 0)
        return -EILSEQ;
    before = own_alloc(disk.bytes);
    disk.log_arena = &arena;
    memcpy(before, disk.mem, disk.bytes);
    arena.used = 0;
    disk_log_begin(&disk.log);
    disk.writes = disk.flushes = disk.reads = disk.bytes_written = 0;
    rc = disk_boot(&b);
    if (rc < 0 || b.stuck)
        snprintf(why, WHY_MAX, "the workload ends with %d (%s)%s", rc, strerror(-rc),
                 b.stuck ? ", it hangs" : "");
    *out_log = disk_log_take();
    memcpy(disk.mem, before, disk.bytes);
    own_free(before);
    return rc < 0 || b.stuck ? -EILSEQ : 0;
}

/* A job that died tells by its report where it was. */
static bool job_ended(void *job, int status)
{
    char why[JOBS_ENDED_TEXT];
    struct job *j = job;

    if (!j->r->over) {
        failed(j, "see above", jobs_ended_text(status, why));
        j->from = j->r->cut + 1;
    }
    return !j->r->over && j->r->failures < j->o->failures_max && j->from <= j->to;
}

int walk(const struct subject *s, const struct walk_opts *o, struct walk_result *out)
{
    unsigned n = MIN(MAX(1u, o->jobs), JOBS_MAX);
    struct job jobs[JOBS_MAX] = {{.s = NULL}};
    struct report *reports = mmap(NULL, sizeof(*reports) * JOBS_MAX, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct disk_log log;
    char why[WHY_MAX] = "";
    uint32_t from, to;

    must(reports != MAP_FAILED);
    *out = (struct walk_result){.writes = 0};
    if (walk_record(s, o->seed, &log, why) < 0) {
        printf("crash: %s: seed %llu: %s\n", s->name, (unsigned long long)o->seed, why);
        out->failures = 1;
        return -EILSEQ;
    }
    out->writes = disk.writes;
    out->flushes = disk.flushes;
    out->bytes = disk.bytes_written;
    out->ticks = log.ticks;
    from = MAX(1u, o->cut_from);
    to = o->cut_to != 0 ? MIN(o->cut_to, log.ticks) : log.ticks;
    for (unsigned i = 0; i < n; i++)
        jobs[i] =
            (struct job){.s = s,
                         .o = o,
                         .r = &reports[i],
                         .log = &log,
                         .from = from + (uint32_t)((uint64_t)(to - from + 1) * i / n),
                         .to = from + (uint32_t)((uint64_t)(to - from + 1) * (i + 1) / n) - 1};
    jobs_run(jobs, sizeof(jobs[0]), n, job_run, job_ended);
    for (unsigned i = 0; i < n; i++) {
        out->cuts += reports[i].cuts;
        out->images += reports[i].images;
        out->nested += reports[i].nested;
        out->failures += reports[i].failures;
        if (reports[i].failures > 0 &&
            (out->first_found == 0 || reports[i].first_found < out->first_found))
            out->first_found = reports[i].first_found;
    }
    munmap(reports, sizeof(*reports) * JOBS_MAX);
    own_free(log.op);
    own_free(log.event);
    return out->failures > 0 ? -EILSEQ : 0;
}
