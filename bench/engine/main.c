/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-engine ENGINE DIR [--items N] [--value BYTES] [--cache BYTES] [--uri URI] [--nosync]
 *              [--poll never|adaptive|always] [--reactors N] PHASE...
 *
 * Opens an engine in a directory, runs the phases one after the other, and prints a line of JSON
 * for each. A phase is NAME[@DEPTH][/LIMIT], LIMIT a number of operations or a time ("5s",
 * "200ms"); without one each item is met once.
 *
 *     fill put zipf           puts: each item once, uniform, zipfian
 *     get mix list            gets; half gets, half puts; keys of a prefix
 *     scan scanv              all keys in order; with their values; over and over for a time
 *     delete90 rest           deletes nine items of ten; gets the others
 *     flush collect reopen    what the names say; `idle/5s` does nothing
 *     kill                    ends the process as kill -9 does
 */
#include "engine.h"

#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

static const struct engine *const engines[] = {
    &engine_kvasir,
#ifdef HAVE_ROCKSDB
    &engine_rocksdb,
#endif
#ifdef HAVE_LEVELDB
    &engine_leveldb,
#endif
#ifdef HAVE_LMDB
    &engine_lmdb,
#endif
    &engine_raw,
};

struct phase {
    char name[32];
    unsigned depth;
    uint64_t ops;     /* 0: not limited */
    uint64_t time_ns; /* 0: not limited */
};

static uint64_t rss_before; /* the bench's own memory */

/* NAME[@DEPTH][/LIMIT] */
static int parse_phase(const char *text, struct phase *p)
{
    const char *at = strchr(text, '@'), *slash = strchr(text, '/');
    size_t len = strcspn(text, "@/");
    char *end;

    *p = (struct phase){.depth = at != NULL ? (unsigned)atoi(at + 1) : 1};
    if (len >= sizeof(p->name) || p->depth == 0 || p->depth > 4096)
        return -EINVAL;
    memcpy(p->name, text, len);
    if (slash == NULL)
        return 0;
    p->ops = strtoull(slash + 1, &end, 10);
    if (*end == '\0')
        return 0;
    p->time_ns = p->ops * (strcmp(end, "ms") == 0 ? NS_PER_MS : NS_PER_S);
    p->ops = 0;
    return strcmp(end, "s") == 0 || strcmp(end, "ms") == 0 ? 0 : -EINVAL;
}

/* --- one line a phase ------------------------------------------------------------------------- */

static double us(uint64_t ns)
{
    return (double)ns / 1e3;
}

static void add_latency(json_t *line, const char *side, const struct hist *h)
{
    if (h->count == 0)
        return;
    json_object_set_new(line, side,
                        json_pack("{s:I, s:f, s:f, s:f, s:f}", "ops", (json_int_t)h->count,
                                  "p50_us", us(hist_percentile(h, 0.5)), "p99_us",
                                  us(hist_percentile(h, 0.99)), "p999_us",
                                  us(hist_percentile(h, 0.999)), "max_us", us(h->max)));
}

/* What of it was in this phase. */
static void add_counters(json_t *line, const struct counters *from, const struct counters *to)
{
    if (!to->known)
        return;
    json_object_set_new(line, "counted",
                        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
                                  "cached", (json_int_t)(to->cached - from->cached), "prepared",
                                  (json_int_t)(to->prepared_bytes - from->prepared_bytes), "log",
                                  (json_int_t)(to->log_bytes - from->log_bytes), "large",
                                  (json_int_t)(to->large_bytes - from->large_bytes), "moved",
                                  (json_int_t)(to->moved_bytes - from->moved_bytes), "index",
                                  (json_int_t)(to->index_bytes - from->index_bytes), "checkpoints",
                                  (json_int_t)(to->checkpoints - from->checkpoints), "collected",
                                  (json_int_t)(to->segments_collected - from->segments_collected),
                                  "flushes", (json_int_t)(to->flushes - from->flushes), "key_bytes",
                                  (json_int_t)to->key_bytes, "keys", (json_int_t)to->keys));
}

static json_t *line_of(struct bench *b, const struct phase *p, uint64_t ops, uint64_t bytes,
                       const struct cost *before)
{
    struct cost now;
    double secs, cpu;
    json_t *line;

    cost_now(b, &now);
    secs = (double)(now.at_ns - before->at_ns) / (double)NS_PER_S;
    cpu = us(now.user_ns - before->user_ns) + us(now.sys_ns - before->sys_ns);
    line = json_pack("{s:s, s:s, s:i, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:I, s:I}", "engine",
                     b->engine->name, "phase", p->name, "depth", (int)p->depth, "ops",
                     (json_int_t)ops, "bytes", (json_int_t)bytes, "seconds", secs, "per_s",
                     (double)ops / secs, "cpu_us", cpu / (double)MAX(ops, 1u), "sys_us",
                     us(now.sys_ns - before->sys_ns) / (double)MAX(ops, 1u), "written",
                     (json_int_t)(now.write_bytes - before->write_bytes), "read_bytes",
                     (json_int_t)(now.read_bytes - before->read_bytes), "rss",
                     (json_int_t)(cost_rss_bytes() - MIN(rss_before, cost_rss_bytes())));
    add_counters(line, &before->counted, &now.counted);
    return line;
}

static void print_line(json_t *line)
{
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(6));

    puts(text);
    fflush(stdout);
    free(text);
    json_decref(line);
}

/* --- loads ------------------------------------------------------------------------------------ */

static int make_load(struct bench *b, const struct phase *p, struct load *l)
{
    *l = (struct load){.b = b, .depth = p->depth, .read_percent = 0, .range = b->items};
    l->kind = OP_PUT;
    l->order = ORDER_UNIFORM;
    if (strcmp(p->name, "fill") == 0) {
        l->order = ORDER_EACH_ONCE;
    } else if (strcmp(p->name, "zipf") == 0) {
        l->order = ORDER_ZIPF;
    } else if (strcmp(p->name, "get") == 0) {
        l->kind = OP_GET;
    } else if (strcmp(p->name, "mix") == 0) {
        l->read_percent = 50;
    } else if (strcmp(p->name, "list") == 0) {
        l->kind = OP_LIST;
    } else if (strcmp(p->name, "delete90") == 0) {
        l->kind = OP_DELETE;
        l->order = ORDER_EACH_ONCE;
        l->range = MAX(b->items / 10 * 9, 1);
    } else if (strcmp(p->name, "rest") == 0) {
        l->kind = OP_GET;
        l->order = ORDER_EACH_ONCE;
        l->first = b->items / 10 * 9;
        l->range = b->items - l->first;
    } else if (strcmp(p->name, "put") != 0) {
        return -EINVAL;
    }
    l->ops_max = p->ops > 0 || p->time_ns > 0 ? p->ops : l->range;
    if (l->order == ORDER_ZIPF) {
        l->zipf = zipf_new(l->range);
        if (l->zipf == NULL)
            return -ENOMEM;
    }
    return 0;
}

static int make_workers(struct bench *b, struct load *l)
{
    l->workers = calloc(l->depth, sizeof(*l->workers));
    if (l->workers == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < l->depth; i++) {
        struct worker *w = &l->workers[i];

        w->load = l;
        w->index = i;
        w->random = bench_mix(bench_now_ns() + i);
        w->buf = aligned_alloc(4096, round_up_u64(b->val_bytes + 1, 4096));
        if (w->buf == NULL)
            return -ENOMEM;
        memset(w->buf, 1, b->val_bytes); /* so that its pages are not counted as the engine's */
    }
    return 0;
}

static void free_load(struct load *l)
{
    for (unsigned i = 0; l->workers != NULL && i < l->depth; i++)
        free(l->workers[i].buf);
    free(l->workers);
    free(l->zipf);
}

static void report_load(struct bench *b, const struct phase *p, struct load *l,
                        const struct cost *before)
{
    CLEANUP(free_p) struct hist *all = calloc(2, sizeof(*all));
    uint64_t ops;
    json_t *line;

    if (all == NULL)
        return;
    for (unsigned i = 0; i < l->depth; i++) {
        hist_merge(&all[0], &l->workers[i].read_ns);
        hist_merge(&all[1], &l->workers[i].write_ns);
    }
    ops = all[0].count + all[1].count;
    line = line_of(b, p, ops, ops * b->val_bytes, before);
    add_latency(line, "read", &all[0]);
    add_latency(line, "write", &all[1]);
    json_object_set_new(line, "wrong", json_integer((json_int_t)atomic_load(&l->wrong)));
    print_line(line);
}

static int run_load(struct bench *b, const struct phase *p)
{
    struct cost before;
    struct load l;
    uint64_t rss;
    int rc = make_load(b, p, &l);

    rss = cost_rss_bytes();
    if (rc == 0)
        rc = make_workers(b, &l);
    rss = cost_rss_bytes() - MIN(rss, cost_rss_bytes());
    rss_before += rss;
    if (rc == 0) {
        cost_now(b, &before);
        l.end_ns = before.at_ns + p->time_ns;
        rc = b->engine->drive(b, &l);
        if (rc == 0)
            rc = atomic_load(&l.error);
        report_load(b, p, &l, &before);
        if (rc == 0 && atomic_load(&l.wrong) > 0)
            rc = -EBADMSG;
    }
    rss_before -= rss;
    free_load(&l);
    return rc;
}

/* --- other phases ----------------------------------------------------------------------------- */

static int run_scan(struct bench *b, const struct phase *p)
{
    struct scan s = {.values = strcmp(p->name, "scanv") == 0,
                     .keys_max = p->ops > 0 ? p->ops : UINT64_MAX};
    struct cost before;
    int rc;

    cost_now(b, &before);
    s.end_ns = p->time_ns > 0 ? before.at_ns + p->time_ns : UINT64_MAX;
    do {
        rc = b->engine->scan == NULL ? -ENOTSUP : b->engine->scan(b, &s);
    } while (rc == 0 && s.keys > 0 && p->time_ns > 0 && bench_now_ns() < s.end_ns);
    print_line(line_of(b, p, s.keys, s.bytes, &before));
    return rc;
}

/* What is done once: ops is 1. */
static int run_once(struct bench *b, const struct phase *p)
{
    struct cost before;
    json_t *line;
    int rc = 0;

    cost_now(b, &before);
    if (strcmp(p->name, "open") == 0)
        rc = b->engine->open(b);
    else if (strcmp(p->name, "flush") == 0 && b->engine->flush != NULL)
        rc = b->engine->flush(b);
    else if (strcmp(p->name, "collect") == 0 && b->engine->collect != NULL)
        rc = b->engine->collect(b);
    else if (strcmp(p->name, "idle") == 0)
        usleep((useconds_t)(p->time_ns / NS_PER_US));
    else if (strcmp(p->name, "reopen") == 0) {
        b->engine->close(b);
        b->state = NULL;
        before.counted = (struct counters){0};
        rc = b->engine->open(b);
    }
    line = line_of(b, p, 1, 0, &before);
    sync(); /* what is delayed has no blocks yet */
    json_object_set_new(line, "disk", json_integer((json_int_t)cost_disk_bytes(b->dir)));
    print_line(line);
    return rc;
}

static int run_phase(struct bench *b, const struct phase *p)
{
    static const char *const once[] = {"flush", "collect", "idle", "reopen"};

    if (strcmp(p->name, "kill") == 0)
        kill(getpid(), SIGKILL);
    if (strncmp(p->name, "scan", 4) == 0)
        return run_scan(b, p);
    for (unsigned i = 0; i < ARRAY_LEN(once); i++) {
        if (strcmp(p->name, once[i]) == 0)
            return run_once(b, p);
    }
    return run_load(b, p);
}

static int make_pool(struct bench *b)
{
    b->pool_bytes = MAX(16 * MIB, b->val_bytes + 8 * MIB);
    b->pool = aligned_alloc(4096, round_up_u64(b->pool_bytes, 4096));
    if (b->pool == NULL)
        return -ENOMEM;
    for (size_t at = 0; at < b->pool_bytes;) {
        uint64_t v = bench_mix(at);

        memcpy(b->pool + at, &v, MIN(sizeof(v), b->pool_bytes - at));
        at += sizeof(v);
    }
    rss_before = cost_rss_bytes();
    return 0;
}

static int run_phases(struct bench *b, char **text, int n)
{
    struct phase p = {.name = "open"};
    int rc = run_once(b, &p);

    for (int i = 0; i < n && rc == 0; i++) {
        rc = parse_phase(text[i], &p);
        if (rc == 0)
            rc = run_phase(b, &p);
        if (rc < 0)
            fprintf(stderr, "bench-engine: %s: %s: %s\n", b->engine->name, text[i], strerror(-rc));
    }
    if (b->state != NULL)
        b->engine->close(b);
    return rc;
}

static int usage(void)
{
    fprintf(stderr,
            "bench-engine ENGINE DIR [--items N] [--value BYTES] [--cache BYTES] [--uri URI] "
            "[--nosync] [--poll HOW] [--reactors N] PHASE...\nengines:");
    for (unsigned i = 0; i < ARRAY_LEN(engines); i++)
        fprintf(stderr, " %s", engines[i]->name);
    fprintf(stderr, "\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"items", required_argument, NULL, 'i'},    {"value", required_argument, NULL, 'v'},
        {"cache", required_argument, NULL, 'c'},    {"uri", required_argument, NULL, 'u'},
        {"nosync", no_argument, NULL, 'n'},         {"poll", required_argument, NULL, 'p'},
        {"reactors", required_argument, NULL, 'R'}, {NULL},
    };
    struct bench b = {.items = 10000,
                      .val_bytes = 4096,
                      .cache_bytes = 64 * MIB,
                      .sync = true,
                      .uri = "mem:",
                      .poll = "never",
                      .reactors = 1};
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'i':
            b.items = strtoull(optarg, NULL, 0);
            break;
        case 'v':
            b.val_bytes = strtoull(optarg, NULL, 0);
            break;
        case 'c':
            b.cache_bytes = strtoull(optarg, NULL, 0);
            break;
        case 'u':
            b.uri = optarg;
            break;
        case 'n':
            b.sync = false;
            break;
        case 'p':
            b.poll = optarg;
            break;
        case 'R':
            b.reactors = MAX(1u, (unsigned)strtoul(optarg, NULL, 10));
            break;
        default:
            return usage();
        }
    }
    for (unsigned i = 0; optind < argc && i < ARRAY_LEN(engines); i++) {
        if (strcmp(argv[optind], engines[i]->name) == 0)
            b.engine = engines[i];
    }
    if (b.engine == NULL || optind + 2 > argc || b.items < 10 || make_pool(&b) < 0)
        return usage();
    b.dir = argv[optind + 1];
    return run_phases(&b, argv + optind + 2, argc - optind - 2) < 0;
}
