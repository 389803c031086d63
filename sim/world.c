/* SPDX-License-Identifier: Apache-2.0 */
/* The world's loop: which reactor turns next, when the clock moves, what an event is. */
#include "sim/world.h"

#include "sim/fs.h"
#include "sim/io.h"
#include "sim/net.h"

#include "base/map.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_LSAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define SIM_LSAN 1
#endif
#ifdef SIM_LSAN
#include <sanitizer/lsan_interface.h>
#endif

#define TRACE_LINES 4096u
#define TRACE_LINE_MAX 200u
#define TRACE_SHOWN 60u
#define IDLE_TURNS_MAX 2000000 /* turns without the clock's moving by itself: something spins */

struct sim_world sim;
static char trace_ring[TRACE_LINES][TRACE_LINE_MAX];

/* --- dice --------------------------------------------------------------------------------------
 */

void sim_dice_init(struct sim_dice *d, uint64_t seed, const char *purpose)
{
    d->state = seed * 0x9e3779b97f4a7c15ull + 1;
    for (const char *p = purpose; *p != '\0'; p++)
        d->state = (d->state ^ (uint8_t)*p) * 0x100000001b3ull;
    sim_roll(d);
}

uint64_t sim_roll(struct sim_dice *d)
{
    uint64_t z = d->state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

uint64_t sim_below(struct sim_dice *d, uint64_t n)
{
    must(n > 0);
    return sim_roll(d) % n;
}

uint64_t sim_between(struct sim_dice *d, uint64_t lo, uint64_t hi)
{
    must(lo <= hi);
    return lo + sim_below(d, hi - lo + 1);
}

bool sim_chance(struct sim_dice *d, uint32_t ppm)
{
    return sim_below(d, 1000000) < ppm;
}

uint64_t sim_skewed(struct sim_dice *d, uint64_t lo, uint64_t hi)
{
    unsigned bits = 64 - (unsigned)__builtin_clzll((hi - lo) | 1);
    uint64_t top = (UINT64_C(1) << sim_below(d, bits)) * 2 - 1;

    return lo + sim_below(d, MIN(top, hi - lo) + 1);
}

/* --- trace -------------------------------------------------------------------------------------
 */

void sim_trace(const char *fmt, ...)
{
    char *line = trace_ring[sim.trace_lines++ % TRACE_LINES];
    va_list ap;
    int n;

    n = snprintf(line, TRACE_LINE_MAX, "%5llu.%09llu ", (unsigned long long)(sim.now_ns / NS_PER_S),
                 (unsigned long long)(sim.now_ns % NS_PER_S));
    va_start(ap, fmt);
    vsnprintf(line + n, TRACE_LINE_MAX - (size_t)n, fmt, ap);
    va_end(ap);
    for (const char *p = line; *p != '\0'; p++)
        sim.trace_hash = (sim.trace_hash ^ (uint8_t)*p) * 0x100000001b3ull;
    if (sim.verbose)
        puts(line);
}

static void put_text(int fd, const char *text)
{
    ssize_t n = write(fd, text, strlen(text));

    (void)n;
}

void sim_trace_dump(int fd)
{
    uint64_t first = sim.trace_lines > TRACE_SHOWN ? sim.trace_lines - TRACE_SHOWN : 0;

    if (sim.verbose)
        return;
    for (uint64_t i = first; i < sim.trace_lines; i++) {
        put_text(fd, "  ");
        put_text(fd, trace_ring[i % TRACE_LINES]);
        put_text(fd, "\n");
    }
}

void sim_fail(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    fprintf(stderr, "sim: seed %llu at %llu.%09llu s: ", (unsigned long long)sim.seed,
            (unsigned long long)(sim.now_ns / NS_PER_S),
            (unsigned long long)(sim.now_ns % NS_PER_S));
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    sim_trace_dump(2);
    _exit(1);
}

/* --- events: a binary heap by time, then by order of queueing -----------------------------------
 */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

static void place(struct sim_event *ev, uint32_t pos)
{
    sim.heap[pos] = ev;
    ev->heap_pos = pos;
}

static void sift_up(struct sim_event *ev, uint32_t pos)
{
    while (pos > 1 && before(ev, sim.heap[pos / 2])) {
        place(sim.heap[pos / 2], pos);
        pos /= 2;
    }
    place(ev, pos);
}

static void sift_down(struct sim_event *ev, uint32_t pos)
{
    for (;;) {
        uint32_t child = pos * 2;

        if (child > sim.nevents)
            break;
        if (child < sim.nevents && before(sim.heap[child + 1], sim.heap[child]))
            child++;
        if (!before(sim.heap[child], ev))
            break;
        place(sim.heap[child], pos);
        pos = child;
    }
    place(ev, pos);
}

void sim_event_at(struct sim_event *ev, uint64_t at_ns)
{
    must(ev->fn != NULL);
    sim_event_stop(ev);
    if (sim.nevents + 2 > sim.heap_cap) {
        sim.heap_cap = MAX(sim.heap_cap * 2, 256u);
        sim.heap = realloc(sim.heap, sim.heap_cap * sizeof(struct sim_event *));
        must(sim.heap != NULL);
    }
    ev->at_ns = MAX(at_ns, sim.now_ns);
    ev->seq = sim.event_seq++;
    sift_up(ev, ++sim.nevents);
}

void sim_event_in(struct sim_event *ev, uint64_t in_ns)
{
    sim_event_at(ev, sim.now_ns + in_ns);
}

void sim_event_stop(struct sim_event *ev)
{
    struct sim_event *last;
    uint32_t pos = ev->heap_pos;

    if (pos == 0)
        return;
    must(sim.heap[pos] == ev);
    last = sim.heap[sim.nevents--];
    ev->heap_pos = 0;
    if (last == ev)
        return;
    if (pos > 1 && before(last, sim.heap[pos / 2]))
        sift_up(last, pos);
    else
        sift_down(last, pos);
}

static bool run_events(void)
{
    bool any = false;

    while (sim.nevents > 0 && sim.heap[1]->at_ns <= sim.now_ns) {
        struct sim_event *ev = sim.heap[1];

        sim_event_stop(ev);
        ev->fn(ev);
        any = true;
    }
    return any;
}

/* --- descriptors -------------------------------------------------------------------------------
 */

int sim_fd_new(struct sim_machine *m, enum sim_fd_kind kind, void *ptr)
{
    for (int fd = 3; fd < SIM_FDS_MAX; fd++) {
        if (m->fd[fd].kind == SIM_FD_NONE) {
            m->fd[fd] = (struct sim_fd){.kind = kind, .ptr = ptr};
            return fd;
        }
    }
    return -EMFILE;
}

void *sim_fd_get(struct sim_machine *m, int fd, enum sim_fd_kind kind)
{
    if (fd < 0 || fd >= SIM_FDS_MAX || m->fd[fd].kind != kind)
        return NULL;
    return m->fd[fd].ptr;
}

void sim_fd_free(struct sim_machine *m, int fd)
{
    must(m->fd[fd].kind != SIM_FD_NONE);
    m->fd[fd] = (struct sim_fd){0};
}

unsigned sim_fd_count(const struct sim_machine *m)
{
    unsigned n = 0;

    for (int fd = 0; fd < SIM_FDS_MAX; fd++)
        n += m->fd[fd].kind != SIM_FD_NONE;
    return n;
}

/* --- machines ----------------------------------------------------------------------------------
 */

void sim_world_init(uint64_t seed)
{
    sim = (struct sim_world){
        .seed = seed, .now_ns = NS_PER_S, .next_port = 32768, .trace_hash = 0xcbf29ce484222325ull};
    sim_dice_init(&sim.order, seed, "order");
    sim_dice_init(&sim.net, seed, "net");
    sim_dice_init(&sim.disk, seed, "disk");
    sim_dice_init(&sim.random, seed, "random");
    sim.weather = (struct sim_weather){.net_delay_ns = 20 * NS_PER_US,
                                       .net_jitter_ns = 20 * NS_PER_US,
                                       .net_buf_bytes = 64 * KIB,
                                       .disk_delay_ns = 50 * NS_PER_US,
                                       .disk_jitter_ns = 50 * NS_PER_US};
    list_init(&sim.conns);
    hash_seed(sim_roll(&sim.random), sim_roll(&sim.random));
}

void sim_world_fini(void)
{
    for (unsigned i = 0; i < sim.nmachines; i++) {
        must(sim.machine[i].rt == NULL);
        sim_fs_free(sim.machine[i].fs);
    }
    sim_net_fini();
    free(sim.heap);
    sim.heap = NULL;
}

struct sim_machine *sim_machine_add(const char *name, unsigned nreactors)
{
    struct sim_machine *m = &sim.machine[sim.nmachines];

    must(sim.nmachines < SIM_MACHINES_MAX);
    must(nreactors <= SIM_REACTORS_MAX);
    *m = (struct sim_machine){.name = name, .idx = sim.nmachines++, .nreactors = nreactors};
    list_init(&m->inflight);
    list_init(&m->listeners);
    m->fs = sim_fs_new();
    return m;
}

/* What a machine that will crash holds at that moment is lost with it, and no leak. */
static void leaks_off(const struct sim_machine *m)
{
#ifdef SIM_LSAN
    if (m->doomed)
        __lsan_disable();
#else
    (void)m;
#endif
}

static void leaks_on(const struct sim_machine *m)
{
#ifdef SIM_LSAN
    if (m->doomed)
        __lsan_enable();
#else
    (void)m;
#endif
}

static void enter(struct sim_machine *m, unsigned idx)
{
    sim.here = m;
    sim.here_reactor = &m->reactor[idx];
    leaks_off(m);
}

static void leave(void)
{
    leaks_on(sim.here);
    sim.here = NULL;
    sim.here_reactor = NULL;
}

void sim_boot(struct sim_machine *m, size_t buf_bytes)
{
    struct rt_config cfg = {.reactors = m->nreactors, .buf_bytes = buf_bytes, .tasks_max = 1024};
    struct err why = {""};

    must(m->rt == NULL);
    m->boots++;
    sim_trace("%s: boots, the %u. time", m->name, m->boots);
    for (unsigned i = 0; i < m->nreactors; i++) {
        m->reactor[i] = (struct sim_reactor){.machine = m};
        list_init(&m->reactor[i].due);
    }
    enter(m, 0);
    if (rt_manual_new(&cfg, &sim_backend_ops, &m->rt, &why) < 0)
        sim_fail("%s: no runtime: %s", m->name, why.text);
    leave();
}

int sim_start(struct sim_machine *m, unsigned reactor, const char *name, rt_task_fn fn, void *arg,
              struct rt_req *done)
{
    int rc;

    must(sim.here == NULL);
    enter(m, reactor);
    rt_manual_enter(m->rt, reactor);
    rc = rt_task_start(name, fn, arg, done, NULL);
    leave();
    m->reactor[reactor].idle = false;
    return rc;
}

static void free_rt(struct sim_machine *m, bool abandon)
{
    enter(m, 0);
    rt_manual_enter(m->rt, 0);
    if (abandon && sim.abandon != NULL)
        sim.abandon();
    rt_manual_free(m->rt, abandon);
    m->rt = NULL;
    leave();
}

void sim_halt(struct sim_machine *m)
{
    must(m->rt != NULL);
    sim_trace("%s: halts", m->name);
    if (sim_fd_count(m) > 0)
        sim_fail("%s: %u descriptors are still open", m->name, sim_fd_count(m));
    if (!list_empty(&m->inflight))
        sim_fail("%s: I/O is still in flight", m->name);
    free_rt(m, false);
}

static void crash(struct sim_machine *m, bool power)
{
    must(m->rt != NULL);
    must(sim.here == NULL);
    sim_io_crash(m);
    sim_net_crash(m, power);
    for (int fd = 0; fd < SIM_FDS_MAX; fd++) {
        if (m->fd[fd].kind == SIM_FD_FILE)
            free(m->fd[fd].ptr);
        m->fd[fd] = (struct sim_fd){0};
    }
    free_rt(m, true);
    for (unsigned i = 0; i < m->nreactors; i++)
        list_init(&m->reactor[i].due);
}

void sim_kill(struct sim_machine *m)
{
    sim_trace("%s: killed", m->name);
    sim.nkills++;
    crash(m, false);
    sim_fs_killed(m->fs);
}

void sim_power_cut(struct sim_machine *m)
{
    sim_trace("%s: power cut", m->name);
    sim.npowercuts++;
    crash(m, true);
    sim_fs_power_cut(m->fs);
}

/* --- the loop ----------------------------------------------------------------------------------
 */

void sim_due_add(struct sim_reactor *r, struct sim_due *due)
{
    list_add_tail(&r->due, &due->link);
    r->idle = false;
}

/* Everything that has run on a machine may have sent messages to its other reactors. */
static void wake_machine(struct sim_machine *m)
{
    for (unsigned i = 0; i < m->nreactors; i++)
        m->reactor[i].idle = false;
}

static void turn(struct sim_machine *m, unsigned idx)
{
    struct sim_reactor *r = &m->reactor[idx];
    bool worked;

    enter(m, idx);
    worked = rt_manual_turn(m->rt, idx);
    leave();
    if (!worked) {
        r->idle = true;
        return;
    }
    sim.turns++;
    wake_machine(m);
    sim.now_ns += sim_between(&sim.order, 100, 3000);
    if (sim_chance(&sim.order, sim.weather.stall_ppm)) {
        r->stalled_until = sim.now_ns + sim_skewed(&sim.order, 10 * NS_PER_US, 50 * NS_PER_MS);
        sim_trace("%s/%u: stalls for %llu us", m->name, idx,
                  (unsigned long long)((r->stalled_until - sim.now_ns) / NS_PER_US));
    }
}

/* A reactor that may have something to do, any of them; false when none has. */
static bool choose(struct sim_machine **out_m, unsigned *out_idx)
{
    unsigned n = 0;

    for (unsigned i = 0; i < sim.nmachines; i++) {
        struct sim_machine *m = &sim.machine[i];

        for (unsigned k = 0; m->rt != NULL && k < m->nreactors; k++) {
            struct sim_reactor *r = &m->reactor[k];

            if (r->stalled_until > sim.now_ns)
                continue;
            if (r->idle && rt_manual_next_timer(m->rt, k) > sim.now_ns)
                continue;
            n++;
            if (sim_below(&sim.order, n) == 0) {
                *out_m = m;
                *out_idx = k;
            }
        }
    }
    return n > 0;
}

/* When something happens next; UINT64_MAX: never. */
static uint64_t next_time(void)
{
    uint64_t next = sim.nevents > 0 ? sim.heap[1]->at_ns : UINT64_MAX;

    for (unsigned i = 0; i < sim.nmachines; i++) {
        struct sim_machine *m = &sim.machine[i];

        for (unsigned k = 0; m->rt != NULL && k < m->nreactors; k++) {
            struct sim_reactor *r = &m->reactor[k];
            uint64_t at = r->idle ? rt_manual_next_timer(m->rt, k) : sim.now_ns;

            next = MIN(next, MAX(at, r->stalled_until));
        }
    }
    return next;
}

bool sim_run(bool (*done)(void *arg), void *arg, uint64_t until_ns)
{
    unsigned busy = 0;

    while (!done(arg)) {
        struct sim_machine *m = NULL;
        unsigned idx = 0;
        uint64_t next;

        run_events();
        if (choose(&m, &idx)) {
            if (++busy > IDLE_TURNS_MAX)
                sim_fail("%s/%u spins: %u turns and nothing that it waits for", m->name, idx,
                         IDLE_TURNS_MAX);
            turn(m, idx);
            continue;
        }
        busy = 0;
        next = next_time();
        if (next > until_ns) {
            sim.now_ns = MAX(sim.now_ns, until_ns);
            return done(arg);
        }
        sim.now_ns = MAX(sim.now_ns, next);
    }
    return true;
}
