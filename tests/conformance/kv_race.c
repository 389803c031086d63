/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens between tasks and reactors: reads and writes of the same keys at the same time,
 * conditional stores, appends, batches against snapshots, cancelling, removal.
 */
#include "kv_suite.h"

#include "base/endian.h"

#include <pthread.h>
#include <string.h>

#define PER_REACTOR 4

/* --- reads and writes ------------------------------------------------------------------------- */

#define HOT 6
#define EVENTS 4000

/* A write of a hot key: when it began and ended, on one clock for all (a counter). */
struct event {
    uint64_t tag;        /* 0: a delete */
    uint64_t begin, end; /* end UINT64_MAX: still under way, or nobody knows */
};

struct hot {
    pthread_mutex_t lock;
    uint64_t clock;
    unsigned n[HOT];
    struct event *event[HOT];
};

static uint64_t hot_len(uint64_t tag)
{
    static const uint64_t lens[] = {0, 1, 100, 4096, 5000, 66000, 140000};

    return lens[tag % ARRAY_LEN(lens)];
}

static uint64_t hot_now(struct hot *h)
{
    uint64_t now;

    pthread_mutex_lock(&h->lock);
    now = ++h->clock;
    pthread_mutex_unlock(&h->lock);
    return now;
}

static struct event *hot_begin(struct hot *h, unsigned k, uint64_t tag)
{
    struct event *e = NULL;

    pthread_mutex_lock(&h->lock);
    if (h->n[k] < EVENTS) {
        e = &h->event[k][h->n[k]++];
        *e = (struct event){.tag = tag, .begin = ++h->clock, .end = UINT64_MAX};
    }
    pthread_mutex_unlock(&h->lock);
    return e;
}

static void hot_end(struct hot *h, struct event *e, bool known)
{
    pthread_mutex_lock(&h->lock);
    if (known)
        e->end = ++h->clock;
    pthread_mutex_unlock(&h->lock);
}

/* Whether a read during [begin, end] may have seen `tag`: its write had begun, and no other write
 * lies wholly between that and the read. */
static bool hot_allowed(struct hot *h, unsigned k, uint64_t tag, uint64_t begin, uint64_t end)
{
    bool ok = false;

    pthread_mutex_lock(&h->lock);
    for (unsigned i = 0; i < h->n[k] && !ok; i++) {
        const struct event *w = &h->event[k][i];

        if (w->tag != tag || w->begin > end)
            continue;
        ok = true;
        for (unsigned j = 0; j < h->n[k] && ok; j++) {
            const struct event *later = &h->event[k][j];

            ok = !(later->begin > w->end && later->end < begin);
        }
    }
    pthread_mutex_unlock(&h->lock);
    return ok;
}

static void hot_key(char key[16], unsigned k)
{
    snprintf(key, 16, "hot%u", k);
}

static int hot_write(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan, unsigned k)
{
    struct hot *h = r->shared;
    bool drop = kvs_below(&r->rng, 4) == 0;
    uint64_t tag = drop ? 0 : kvs_u64(&r->rng) | 1;
    struct event *e = hot_begin(h, k, tag);
    char key[16];
    int rc;

    if (e == NULL)
        return 0;
    hot_key(key, k);
    if (drop)
        rc = kv_delete(t, chan, kvs_str(key));
    else if (kvs_below(&r->rng, 2) == 0)
        rc = kvs_put(t, r->s, chan, kvs_str(key), tag, hot_len(tag), 0);
    else
        rc = kvs_put_stream(t, r->s, chan, kvs_str(key), tag, hot_len(tag), 30000, 0,
                            kvs_has(r->s, KV_CAP_UNKNOWN_LEN));
    CHECK(rc == 0 || (drop && rc == -ENOENT) || (rc == -EIO && r->s->faulty));
    /* A delete that found nothing says that there was nothing: as good as one that did. */
    hot_end(h, e, rc != -EIO);
    return 0;
}

/* The tag is not in the value: it is looked for among those that may be seen. */
static int hot_check(struct hot *h, unsigned k, const uint8_t *buf, uint64_t len, uint64_t begin,
                     uint64_t end)
{
    unsigned n;
    bool known = false;

    pthread_mutex_lock(&h->lock);
    n = h->n[k];
    pthread_mutex_unlock(&h->lock);
    for (unsigned i = 0; i < n; i++) {
        uint64_t tag = h->event[k][i].tag;

        if (tag == 0 || hot_len(tag) != len || !kvs_is(buf, tag, 0, (size_t)MIN(len, 64)))
            continue;
        CHECK(kvs_is(buf, tag, 0, (size_t)len)); /* begins like it, and goes on differently */
        known = true;
        if (hot_allowed(h, k, tag, begin, end))
            return 0;
    }
    fprintf(stderr, "hot%u: a value of %llu bytes %s\n", k, (unsigned long long)len,
            known ? "that had been replaced before" : "that nobody stored");
    return -EPROTO;
}

static int hot_read(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan, unsigned k)
{
    struct hot *h = r->shared;
    uint64_t begin = hot_now(h), len;
    uint8_t *buf = malloc(140001);
    char key[16];
    int rc;

    hot_key(key, k);
    __atomic_fetch_add(&r->s->count, 1, __ATOMIC_RELAXED);
    rc = kv_retrieve(t, chan, kvs_str(key), buf, 140001, &len);
    if (rc == -ENOENT)
        rc = hot_allowed(h, k, 0, begin, hot_now(h)) ? 0 : -EPROTO;
    else if (rc == 0)
        rc = hot_check(h, k, buf, len, begin, hot_now(h));
    else if (r->s->faulty && rc == -EIO)
        rc = 0;
    free(buf);
    CHECK_RC(rc, 0);
    return 0;
}

static int hot_racer(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan)
{
    for (unsigned i = 0; i < r->s->ops / 2; i++) {
        unsigned k = (unsigned)kvs_below(&r->rng, HOT);
        int rc = kvs_below(&r->rng, 2) == 0 ? hot_write(t, r, chan, k) : hot_read(t, r, chan, k);

        if (rc < 0)
            return rc;
    }
    return 0;
}

static int reads_and_writes(struct rt_task *t, struct kvs *s)
{
    struct hot h = {.lock = PTHREAD_MUTEX_INITIALIZER};

    for (unsigned k = 0; k < HOT; k++) {
        h.event[k] = calloc(EVENTS, sizeof(struct event));
        h.n[k] = 1; /* it is not there: as if deleted before all */
        h.event[k][0] = (struct event){.tag = 0};
    }
    CHECK_RC(kvs_race(t, s, PER_REACTOR, &h, hot_racer), 0);
    for (unsigned k = 0; k < HOT; k++)
        free(h.event[k]);
    return 0;
}

/* --- one winner, no lost update --------------------------------------------------------------- */

struct tally {
    unsigned rounds;
    uint32_t *won; /* per round; atomic */
};

static int create_racer(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan)
{
    struct tally *c = r->shared;

    for (unsigned i = 0; i < c->rounds; i++) {
        char key[32];
        int rc;

        snprintf(key, sizeof(key), "create%u", i);
        if (r->idx % 2 == 0)
            rc = kvs_put(t, r->s, chan, kvs_str(key), r->idx + 1, 100, KV_F_MUST_NOT_EXIST);
        else
            rc = kvs_put_stream(t, r->s, chan, kvs_str(key), r->idx + 1, 100, 60,
                                KV_F_MUST_NOT_EXIST, false);
        CHECK(rc == 0 || rc == -EEXIST);
        if (rc == 0) {
            __atomic_fetch_add(&c->won[i], 1, __ATOMIC_RELAXED);
            CHECK_RC(kvs_get_is(t, r->s, chan, kvs_str(key), r->idx + 1, 100), 1);
        }
    }
    return 0;
}

static int one_winner(struct rt_task *t, struct kvs *s)
{
    struct tally c = {.rounds = s->ops / 10 + 1};

    if (s->faulty)
        return 0;
    c.won = calloc(c.rounds, sizeof(*c.won));
    CHECK_RC(kvs_race(t, s, PER_REACTOR, &c, create_racer), 0);
    for (unsigned i = 0; i < c.rounds; i++)
        CHECK(c.won[i] == 1);
    free(c.won);
    return 0;
}

static int add_one(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan)
{
    struct tally *c = r->shared;

    for (unsigned i = 0; i < c->rounds; i++) {
        uint8_t buf[8];
        struct iovec iov = {.iov_base = buf, .iov_len = 8};
        struct kv_req req;
        int rc;

        do {
            kvs_prepare(r->s, t, &req, KV_RETRIEVE, kvs_str("counter"), NULL);
            req.iov = &iov;
            req.iovcnt = 1;
            req.len = 8;
            CHECK_RC(kvs_do(t, chan, &req), 0);
            le64_put(buf, le64_at(buf) + 1);
            req.op = KV_STORE;
            req.flags = KV_F_IF_VERSION;
            rc = kvs_do(t, chan, &req);
            CHECK(rc == 0 || rc == -ESTALE);
        } while (rc == -ESTALE);
    }
    return 0;
}

static int no_lost_update(struct rt_task *t, struct kvs *s)
{
    struct tally c = {.rounds = s->ops / 20 + 1};
    uint8_t buf[8] = {0};
    uint64_t len;

    if (!kvs_has(s, KV_CAP_VERSION) || s->faulty)
        return 0;
    CHECK_RC(kv_store(t, s->chan, kvs_str("counter"), bytes_make(buf, 8), 0), 0);
    CHECK_RC(kvs_race(t, s, PER_REACTOR, &c, add_one), 0);
    CHECK_RC(kv_retrieve(t, s->chan, kvs_str("counter"), buf, 8, &len), 0);
    CHECK(le64_at(buf) == (uint64_t)c.rounds * PER_REACTOR * rt_reactors());
    return 0;
}

static int append_racer(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan)
{
    struct tally *c = r->shared;

    for (unsigned i = 0; i < c->rounds; i++) {
        uint8_t record[8];

        le64_put(record, (uint64_t)r->idx << 32 | i);
        CHECK_RC(kv_store(t, chan, kvs_str("log"), bytes_make(record, 8), KV_F_APPEND), 0);
    }
    return 0;
}

static int every_append(struct rt_task *t, struct kvs *s)
{
    struct tally c = {.rounds = s->ops / 20 + 1};
    unsigned racers = PER_REACTOR * rt_reactors(), next[64] = {0};
    uint64_t len, want = (uint64_t)c.rounds * racers * 8;
    CLEANUP(free_p) uint8_t *buf = malloc(want);

    if (!kvs_has(s, KV_CAP_APPEND) || s->faulty)
        return 0;
    CHECK_RC(kvs_race(t, s, PER_REACTOR, &c, append_racer), 0);
    CHECK_RC(kv_retrieve(t, s->chan, kvs_str("log"), buf, want, &len), 0);
    CHECK(len == want);
    for (uint64_t off = 0; off < len; off += 8) {
        uint64_t record = le64_at(buf + off);

        CHECK(record >> 32 < racers);
        CHECK((uint32_t)record == next[record >> 32]++); /* each once, in the order of its writer */
    }
    return 0;
}

/* --- batches against snapshots ---------------------------------------------------------------- */

#define GROUP 8

static int batch_writer(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan)
{
    static const char *const names[GROUP] = {"g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7"};
    struct kv_batch_item items[GROUP];
    struct kv_req req;
    uint8_t val[5000];

    for (unsigned i = 0; i < r->s->ops / 8; i++) {
        kvs_fill(val, (uint64_t)r->idx << 32 | (i + 1), 0, sizeof(val));
        for (unsigned g = 0; g < GROUP; g++)
            items[g] = (struct kv_batch_item){.key = bytes_make(names[g], 2),
                                              .val = bytes_make(val, sizeof(val))};
        kvs_prepare(r->s, t, &req, KV_BATCH, bytes_make("", 0), NULL);
        req.batch = items;
        req.nbatch = GROUP;
        CHECK_RC(kvs_do(t, chan, &req), 0);
    }
    return 0;
}

/* Through one snapshot all keys of the group have one value. */
static int batch_reader(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan)
{
    CLEANUP(free_p) uint8_t *first = malloc(5000), *buf = malloc(5000);
    struct kv_snap *snap;
    struct kv_req req;

    for (unsigned i = 0; i < r->s->ops / 8; i++) {
        int first_rc = 0;

        kvs_prepare(r->s, t, &req, KV_SNAP_OPEN, bytes_make("", 0), NULL);
        CHECK_RC(kvs_do(t, chan, &req), 0);
        snap = req.snap;
        for (unsigned g = 0; g < GROUP; g++) {
            char key[3] = {'g', (char)('0' + g), '\0'};
            struct iovec iov = {.iov_base = g == 0 ? first : buf, .iov_len = 5000};
            int rc;

            kvs_prepare(r->s, t, &req, KV_RETRIEVE, bytes_make(key, 2), NULL);
            req.snap = snap;
            req.iov = &iov;
            req.iovcnt = 1;
            req.len = 5000;
            rc = kvs_do(t, chan, &req);
            CHECK(rc == 0 || rc == -ENOENT);
            if (g == 0)
                first_rc = rc;
            CHECK(rc == first_rc);
            CHECK(g == 0 || rc < 0 || memcmp(first, buf, 5000) == 0);
        }
        kvs_prepare(r->s, t, &req, KV_SNAP_CLOSE, bytes_make("", 0), NULL);
        req.snap = snap;
        CHECK_RC(kvs_do(t, chan, &req), 0);
    }
    return 0;
}

static int batch_racer(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan)
{
    return r->idx % 3 == 0 ? batch_writer(t, r, chan) : batch_reader(t, r, chan);
}

static int whole_batches(struct rt_task *t, struct kvs *s)
{
    if (!kvs_has(s, KV_CAP_BATCH) || !kvs_has(s, KV_CAP_SNAPSHOT) || s->faulty)
        return 0;
    CHECK_RC(kvs_race(t, s, PER_REACTOR, NULL, batch_racer), 0);
    return 0;
}

/* --- cancelling ------------------------------------------------------------------------------- */

/* Stores of one key that are cancelled at some time: the key has one of the values, whole. */
static int cancel_racer(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan)
{
    CLEANUP(free_p) uint8_t *buf = malloc(140001);
    char key[32];
    uint64_t old_tag = 0, tag, len;

    snprintf(key, sizeof(key), "cancel%u", r->idx);
    for (unsigned i = 0; i < r->s->ops / 8; i++) {
        struct iovec iov = {.iov_base = buf, .iov_len = 140000};
        struct kv_req req;
        int rc, is_new, is_old;

        tag = kvs_u64(&r->rng) | 1;
        len = hot_len(tag);
        kvs_fill(buf, tag, 0, len);
        kvs_prepare(r->s, t, &req, KV_STORE, kvs_str(key), NULL);
        req.iov = &iov;
        req.iovcnt = 1;
        req.len = len;
        kv_submit(chan, &req);
        for (uint64_t n = kvs_below(&r->rng, 6); n > 0; n--)
            (void)rt_yield(t);
        rt_req_cancel(&req.req);
        rt_req_cancel(&req.req); /* twice is no more */
        rc = rt_wait(t, &req.req);
        CHECK(rc == 0 || rc == -ECANCELED || (rc == -EIO && r->s->faulty));
        do
            is_new = kvs_get_is(t, r->s, chan, kvs_str(key), tag, len);
        while (is_new == -EIO && r->s->faulty);
        do
            is_old = kvs_get_is(t, r->s, chan, kvs_str(key), old_tag, hot_len(old_tag));
        while (is_old == -EIO && r->s->faulty);
        CHECK(is_new == 1 || (rc < 0 && is_old == 1));
        if (is_new == 1)
            old_tag = tag;
    }
    return 0;
}

static int cancelled(struct rt_task *t, struct kvs *s)
{
    uint64_t used, after, keys;

    CHECK_RC(kv_usage(t, s->dev, &used, &keys), 0);
    CHECK_RC(kvs_race(t, s, PER_REACTOR, NULL, cancel_racer), 0);
    CHECK_RC(kvs_empty(t, s, s->chan), 0);
    CHECK_RC(kv_usage(t, s->dev, &after, &keys), 0);
    CHECK(after <= used);
    return 0;
}

/* --- removal ---------------------------------------------------------------------------------- */

static int removed(struct rt_task *t, struct kvs *s)
{
    struct kv_req req, read;
    int rc;

    do
        rc = kvs_put(t, s, s->chan, kvs_str("k"), 1, 5000, 0);
    while (rc == -EIO && s->faulty);
    CHECK_RC(rc, 0);
    do {
        kvs_prepare(s, t, &req, KV_STORE_OPEN, kvs_str("k"), NULL);
        req.len = 0;
        rc = kvs_do(t, s->chan, &req);
    } while (rc == -EIO && s->faulty);
    CHECK_RC(rc, 0);
    do {
        kvs_prepare(s, t, &read, KV_RETRIEVE_OPEN, kvs_str("k"), NULL);
        rc = kvs_do(t, s->chan, &read);
    } while (rc == -EIO && s->faulty);
    CHECK_RC(rc, 0);
    kv_removed(s->dev);
    CHECK_RC(kv_stat(t, s->chan, kvs_str("k"), NULL, NULL), -ENODEV);
    req.op = KV_COMMIT;
    CHECK_RC(kvs_do(t, s->chan, &req), -ENODEV);
    read.op = KV_READ_CLOSE;
    CHECK_RC(kvs_do(t, s->chan, &read), 0);
    return 0;
}

const struct kvs_test kvs_race_tests[] = {
    {"reads-and-writes", reads_and_writes},
    {"one-winner", one_winner},
    {"no-lost-update", no_lost_update},
    {"every-append", every_append},
    {"whole-batches", whole_batches},
    {"cancelled", cancelled},
    {"removed", removed},
    {NULL, NULL},
};
