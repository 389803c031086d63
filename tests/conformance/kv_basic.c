/* SPDX-License-Identifier: Apache-2.0 */
/* Edges, refusals, the meaning of each operation and flag; one request at a time. */
#include "kv_suite.h"

#include <string.h>

/* In faulty runs a request is repeated until it is not -EIO. Only for what may be repeated. */
#define AGAIN(call)                                                                                \
    ({                                                                                             \
        int again_;                                                                                \
        do                                                                                         \
            again_ = (call);                                                                       \
        while (again_ == -EIO && s->faulty);                                                       \
        again_;                                                                                    \
    })

static int refusals(struct rt_task *t, struct kvs *s)
{
    CLEANUP(free_p) uint8_t *key = calloc(1, s->key_max + 1);
    struct kv_req req;

    memset(key, 'k', s->key_max + 1);
    CHECK_RC(kvs_put(t, s, s->chan, kvs_str(""), 1, 5, 0), -EINVAL);
    CHECK_RC(kvs_put(t, s, s->chan, bytes_make(key, s->key_max + 1), 1, 5, 0), -ENAMETOOLONG);
    CHECK_RC(kv_stat(t, s->chan, kvs_str(""), NULL, NULL), -EINVAL);
    CHECK_RC(kv_delete(t, s->chan, bytes_make(key, s->key_max + 1)), -ENAMETOOLONG);
    CHECK_RC(kvs_put(t, s, s->chan, kvs_str("k"), 1, 5, KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST),
             -EINVAL);
    CHECK_RC(kvs_put(t, s, s->chan, kvs_str("k"), 1, 5, 1u << 31), -EINVAL);

    kvs_prepare(s, t, &req, KV_STORE_OPEN, kvs_str("k"), NULL);
    req.len = s->val_max + 1;
    CHECK_RC(kvs_do(t, s->chan, &req), -EFBIG);
    kvs_prepare(s, t, &req, KV_STORE, kvs_str("k"), NULL);
    req.len = 1; /* and no memory */
    CHECK_RC(kvs_do(t, s->chan, &req), -EINVAL);
    kvs_prepare(s, t, &req, KV_STORE_OPEN, kvs_str("k"), NULL);
    req.len = KV_LEN_UNKNOWN;
    if (!kvs_has(s, KV_CAP_UNKNOWN_LEN))
        CHECK_RC(kvs_do(t, s->chan, &req), -ENOTSUP);
    if (!kvs_has(s, KV_CAP_APPEND))
        CHECK_RC(kvs_put(t, s, s->chan, kvs_str("k"), 1, 5, KV_F_APPEND), -ENOTSUP);
    if (!kvs_has(s, KV_CAP_VERSION))
        CHECK_RC(kvs_put(t, s, s->chan, kvs_str("k"), 1, 5, KV_F_IF_VERSION), -ENOTSUP);
    kvs_prepare(s, t, &req, KV_SNAP_OPEN, kvs_str(""), NULL);
    if (!kvs_has(s, KV_CAP_SNAPSHOT))
        CHECK_RC(kvs_do(t, s->chan, &req), -ENOTSUP);
    kvs_prepare(s, t, &req, KV_BATCH, kvs_str(""), NULL);
    if (!kvs_has(s, KV_CAP_BATCH))
        CHECK_RC(kvs_do(t, s->chan, &req), -ENOTSUP);
    CHECK_RC(AGAIN(kv_stat(t, s->chan, kvs_str("k"), NULL, NULL)), -ENOENT);
    return 0;
}

static int sizes(struct rt_task *t, struct kvs *s)
{
    static const uint64_t lens[] = {0,     1,      7,      8,      4095,    4096,
                                    4097,  8127,   8128,   8129,   65535,   65536,
                                    65537, 131071, 131072, 131073, 1000000, 5300000};
    struct bytes key = kvs_str("size");

    for (unsigned i = 0; i < ARRAY_LEN(lens); i++) {
        uint64_t got;

        if (lens[i] > s->len_max)
            continue;
        CHECK_RC(AGAIN(kvs_put(t, s, s->chan, key, i + 1, lens[i], 0)), 0);
        CHECK_RC(AGAIN(kv_stat(t, s->chan, key, &got, NULL)), 0);
        CHECK(got == lens[i]);
        CHECK_RC(AGAIN(kvs_get_is(t, s, s->chan, key, i + 1, lens[i])), 1);
        /* A buffer that is too small gets the beginning and the whole length. */
        CHECK_RC(AGAIN(kv_retrieve(t, s->chan, key, NULL, 0, &got)), 0);
        CHECK(got == lens[i]);
        CHECK_RC(AGAIN(kvs_put_stream(t, s, s->chan, key, i + 100, lens[i], 100000, 0, false)), 0);
        CHECK_RC(AGAIN(kvs_get_is(t, s, s->chan, key, i + 100, lens[i])), 1);
        if (kvs_has(s, KV_CAP_UNKNOWN_LEN)) {
            CHECK_RC(AGAIN(kvs_put_stream(t, s, s->chan, key, i + 200, lens[i], 70001, 0, true)),
                     0);
            CHECK_RC(AGAIN(kvs_get_is(t, s, s->chan, key, i + 200, lens[i])), 1);
        }
    }
    return 0;
}

static int keys(struct rt_task *t, struct kvs *s)
{
    CLEANUP(free_p) uint8_t *key = malloc(s->key_max);
    unsigned step = MAX(s->key_max / 40, 1u);

    /* Each a prefix of the next, and of bytes of all kinds. */
    for (unsigned i = 0; i < s->key_max; i++)
        key[i] = (uint8_t)(i % 3 == 0 ? 0 : i % 3 == 1 ? 255 : i);
    for (unsigned len = 1; len <= s->key_max; len += len < 140 ? 1 : step)
        CHECK_RC(AGAIN(kvs_put(t, s, s->chan, bytes_make(key, len), len, len % 50, 0)), 0);
    CHECK_RC(AGAIN(kvs_put(t, s, s->chan, bytes_make(key, s->key_max), 9999, 10, 0)), 0);
    for (unsigned len = 1; len < s->key_max; len += len < 140 ? 1 : step)
        CHECK_RC(AGAIN(kvs_get_is(t, s, s->chan, bytes_make(key, len), len, len % 50)), 1);
    CHECK_RC(AGAIN(kvs_get_is(t, s, s->chan, bytes_make(key, s->key_max), 9999, 10)), 1);
    for (unsigned b = 0; b < 256; b++) {
        uint8_t one = (uint8_t)b;

        CHECK_RC(AGAIN(kvs_put(t, s, s->chan, bytes_make(&one, 1), b + 1, 20, 0)), 0);
    }
    for (unsigned b = 0; b < 256; b++) {
        uint8_t one = (uint8_t)b;

        CHECK_RC(AGAIN(kvs_get_is(t, s, s->chan, bytes_make(&one, 1), b + 1, 20)), 1);
    }
    return 0;
}

static int flags(struct rt_task *t, struct kvs *s)
{
    struct bytes key = kvs_str("flags");

    if (s->faulty)
        return 0; /* repeating these changes their meaning */
    CHECK_RC(kvs_put(t, s, s->chan, key, 1, 10, KV_F_MUST_EXIST), -ENOENT);
    CHECK_RC(kv_delete(t, s->chan, key), -ENOENT);
    CHECK_RC(kvs_put(t, s, s->chan, key, 2, 10, KV_F_MUST_NOT_EXIST), 0);
    CHECK_RC(kvs_put(t, s, s->chan, key, 3, 10, KV_F_MUST_NOT_EXIST), -EEXIST);
    CHECK_RC(kvs_get_is(t, s, s->chan, key, 2, 10), 1);
    CHECK_RC(kvs_put(t, s, s->chan, key, 4, 20, KV_F_MUST_EXIST), 0);
    CHECK_RC(kvs_get_is(t, s, s->chan, key, 4, 20), 1);
    CHECK_RC(kvs_put_stream(t, s, s->chan, key, 5, 20, 8, KV_F_MUST_NOT_EXIST, false), -EEXIST);
    CHECK_RC(kvs_put_stream(t, s, s->chan, key, 6, 200000, 50000, KV_F_MUST_EXIST, false), 0);
    CHECK_RC(kvs_get_is(t, s, s->chan, key, 6, 200000), 1);
    CHECK_RC(kv_delete(t, s->chan, key), 0);
    CHECK_RC(kvs_put_stream(t, s, s->chan, key, 7, 20, 8, KV_F_MUST_EXIST, false), -ENOENT);
    CHECK_RC(kvs_get_is(t, s, s->chan, key, 0, 0), 1);
    return 0;
}

/* Conditions that held at the open of a stream and no longer at its commit. */
static int late_conditions(struct rt_task *t, struct kvs *s)
{
    struct bytes key = kvs_str("late");
    struct kv_req req;

    if (s->faulty)
        return 0;
    kvs_prepare(s, t, &req, KV_STORE_OPEN, key, NULL);
    req.flags = KV_F_MUST_NOT_EXIST;
    CHECK_RC(kvs_do(t, s->chan, &req), 0);
    CHECK_RC(kvs_put(t, s, s->chan, key, 1, 10, 0), 0);
    req.op = KV_COMMIT;
    req.flags = 0;
    CHECK_RC(kvs_do(t, s->chan, &req), -EEXIST);
    CHECK_RC(kvs_get_is(t, s, s->chan, key, 1, 10), 1);

    kvs_prepare(s, t, &req, KV_STORE_OPEN, key, NULL);
    req.flags = KV_F_MUST_EXIST;
    CHECK_RC(kvs_do(t, s->chan, &req), 0);
    CHECK_RC(kv_delete(t, s->chan, key), 0);
    req.op = KV_COMMIT;
    req.flags = 0;
    CHECK_RC(kvs_do(t, s->chan, &req), -ENOENT);
    CHECK_RC(kvs_get_is(t, s, s->chan, key, 0, 0), 1);
    return 0;
}

static int versions(struct rt_task *t, struct kvs *s)
{
    struct bytes key = kvs_str("version");
    uint64_t last = 0, now, len;
    struct kv_req req;

    if (!kvs_has(s, KV_CAP_VERSION) || s->faulty)
        return 0;
    for (unsigned i = 0; i < 50; i++) {
        CHECK_RC(kvs_put(t, s, s->chan, key, i + 1, 10, 0), 0);
        CHECK_RC(kv_stat(t, s->chan, key, &len, &now), 0);
        CHECK(now != last);
        last = now;
    }
    kvs_prepare(s, t, &req, KV_STORE, key, NULL);
    req.flags = KV_F_IF_VERSION;
    req.version = last + 1;
    CHECK_RC(kvs_do(t, s->chan, &req), -ESTALE);
    req.version = last;
    CHECK_RC(kvs_do(t, s->chan, &req), 0);
    CHECK_RC(kv_stat(t, s->chan, key, &len, &now), 0);
    CHECK(len == 0);
    CHECK(req.version == now); /* a store tells its version */
    req.version = last;
    CHECK_RC(kvs_do(t, s->chan, &req), -ESTALE);
    req.op = KV_DELETE;
    req.version = last;
    CHECK_RC(kvs_do(t, s->chan, &req), -ESTALE);
    req.version = now;
    CHECK_RC(kvs_do(t, s->chan, &req), 0);
    req.op = KV_STORE;
    req.version = now;
    CHECK_RC(kvs_do(t, s->chan, &req), -ESTALE);
    return 0;
}

static int appends(struct rt_task *t, struct kvs *s)
{
    struct bytes key = kvs_str("append");
    CLEANUP(free_p) uint8_t *whole = malloc(1200000), *got = malloc(1200000);
    struct kvs_rng r = kvs_rng(s, "appends");
    size_t len = 0;
    uint64_t got_len;

    if (!kvs_has(s, KV_CAP_APPEND) || s->faulty)
        return 0;
    for (unsigned i = 1; i < 20; i++) {
        size_t more = (size_t)kvs_len(s, &r) % 50000;

        kvs_fill(whole + len, i, 0, more);
        if (i % 3 == 0)
            CHECK_RC(kvs_put_stream(t, s, s->chan, key, i, more, 9000, KV_F_APPEND,
                                    kvs_has(s, KV_CAP_UNKNOWN_LEN)),
                     0);
        else
            CHECK_RC(kvs_put(t, s, s->chan, key, i, more, KV_F_APPEND), 0);
        len += more;
        CHECK_RC(kv_retrieve(t, s->chan, key, got, 1200000, &got_len), 0);
        CHECK(got_len == len);
        CHECK(memcmp(got, whole, len) == 0);
    }
    return 0;
}

static int ranges(struct rt_task *t, struct kvs *s)
{
    struct bytes key = kvs_str("range");
    uint64_t len = MIN(s->len_max, 400000);
    struct kvs_rng r = kvs_rng(s, "ranges");
    struct kvs_mem m;
    struct kv_req req;

    CHECK_RC(AGAIN(kvs_put(t, s, s->chan, key, 77, len, 0)), 0);
    kvs_mem_init(&m, len);
    for (unsigned i = 0; i < 60; i++) {
        uint64_t off = kvs_below(&r, 8) == 0 ? len - kvs_below(&r, 3) : kvs_below(&r, len + 10);
        uint64_t want, max = kvs_below(&r, len);

        kvs_mem_cut(&m, &r, max);
        kvs_prepare(s, t, &req, KV_RETRIEVE, key, &m);
        req.off = off;
        CHECK_RC(AGAIN(kvs_do(t, s->chan, &req)), 0);
        want = off < len ? MIN(len - off, max) : 0;
        CHECK(req.moved == want);
        CHECK(req.value_len == len);
        kvs_mem_unload(&m);
        CHECK(kvs_is(m.flat, 77, off, want));
    }
    kvs_mem_fini(&m);
    return 0;
}

/* An open retrieve stays with the version it opened, whatever happens to the key. */
static int pinned_len(struct rt_task *t, struct kvs *s, uint64_t len)
{
    struct bytes key = kvs_str("pinned");
    struct kvs_rng r = kvs_rng(s, "pinned");
    struct kvs_mem m;
    struct kv_req req;

    CHECK_RC(AGAIN(kvs_put(t, s, s->chan, key, 1, len, 0)), 0);
    kvs_prepare(s, t, &req, KV_RETRIEVE_OPEN, key, NULL);
    CHECK_RC(AGAIN(kvs_do(t, s->chan, &req)), 0);
    CHECK(req.value_len == len);
    kvs_mem_init(&m, 70000);
    for (uint64_t off = 0; off < len; off += req.moved) {
        if (off == 0) /* of the same size: may be tempting to do in place */
            CHECK_RC(AGAIN(kvs_put(t, s, s->chan, key, 2, len, 0)), 0);
        else
            CHECK(AGAIN(kv_delete(t, s->chan, key)) <= 0);
        kvs_mem_cut(&m, &r, 70000);
        req.op = KV_READ;
        req.off = off;
        req.iov = m.iov;
        req.iovcnt = m.iovcnt;
        req.len = m.len;
        CHECK_RC(AGAIN(kvs_do(t, s->chan, &req)), 0);
        CHECK(req.moved == MIN(len - off, 70000));
        kvs_mem_unload(&m);
        CHECK(kvs_is(m.flat, 1, off, req.moved));
        if (s->faulty && !kvs_has(s, KV_CAP_RANGE))
            break;
    }
    req.off = len;
    CHECK_RC(kvs_do(t, s->chan, &req), 0);
    CHECK(req.moved == 0);
    req.op = KV_READ_CLOSE;
    CHECK_RC(kvs_do(t, s->chan, &req), 0);
    CHECK(req.stream == NULL);
    kvs_mem_fini(&m);
    return 0;
}

static int pinned(struct rt_task *t, struct kvs *s)
{
    static const uint64_t lens[] = {1, 4096, 9000, 70000, 300000};

    for (unsigned i = 0; i < ARRAY_LEN(lens); i++)
        CHECK_RC(pinned_len(t, s, MIN(lens[i], s->len_max)), 0);
    return 0;
}

/* What is not committed is not there, and leaves nothing behind. */
static int aborts(struct rt_task *t, struct kvs *s)
{
    struct bytes key = kvs_str("abort");
    struct kvs_rng r = kvs_rng(s, "aborts");
    struct kvs_mem m;
    struct kv_req req;

    CHECK_RC(AGAIN(kvs_put(t, s, s->chan, key, 1, 1000, 0)), 0);
    kvs_mem_init(&m, 50000);
    kvs_mem_cut(&m, &r, 50000);
    for (unsigned how = 0; how < 3; how++) {
        kvs_prepare(s, t, &req, KV_STORE_OPEN, key, NULL);
        req.len = 100000;
        CHECK_RC(AGAIN(kvs_do(t, s->chan, &req)), 0);
        req.iov = m.iov;
        req.iovcnt = m.iovcnt;
        req.len = m.len;
        req.op = KV_WRITE;
        if (how > 0 && kvs_do(t, s->chan, &req) < 0)
            CHECK(s->faulty);
        CHECK_RC(AGAIN(kvs_get_is(t, s, s->chan, key, 1, 1000)), 1);
        req.op = how == 2 ? KV_COMMIT : KV_ABORT; /* a commit of half of it */
        if (how == 2)
            CHECK(kvs_do(t, s->chan, &req) < 0);
        else
            CHECK_RC(kvs_do(t, s->chan, &req), 0);
        CHECK(req.stream == NULL);
        CHECK_RC(AGAIN(kvs_get_is(t, s, s->chan, key, 1, 1000)), 1);
    }
    kvs_mem_fini(&m);
    return 0;
}

static int batches(struct rt_task *t, struct kvs *s)
{
    struct kv_batch_item items[4] = {
        {.key = kvs_str("a"), .val = kvs_str("one")},
        {.key = kvs_str("b"), .is_delete = true},
        {.key = kvs_str("c"), .is_delete = true}, /* not there: no error */
        {.key = kvs_str("a"), .val = kvs_str("later wins")},
    };
    struct kv_req req;
    char buf[16] = "";
    uint64_t len;

    if (!kvs_has(s, KV_CAP_BATCH) || s->faulty)
        return 0;
    CHECK_RC(kvs_put(t, s, s->chan, kvs_str("b"), 1, 10, 0), 0);
    kvs_prepare(s, t, &req, KV_BATCH, kvs_str(""), NULL);
    req.batch = items;
    req.nbatch = 4;
    CHECK_RC(kvs_do(t, s->chan, &req), 0);
    CHECK_RC(kv_retrieve(t, s->chan, kvs_str("a"), buf, sizeof(buf), &len), 0);
    CHECK(len == 10);
    CHECK(memcmp(buf, "later wins", 10) == 0);
    CHECK_RC(kv_stat(t, s->chan, kvs_str("b"), NULL, NULL), -ENOENT);
    /* Delete and store of one key in one batch, in both orders. */
    items[0] = (struct kv_batch_item){.key = kvs_str("a"), .is_delete = true};
    items[1] = (struct kv_batch_item){.key = kvs_str("a"), .val = kvs_str("again")};
    items[2] = (struct kv_batch_item){.key = kvs_str("d"), .val = kvs_str("short-lived")};
    items[3] = (struct kv_batch_item){.key = kvs_str("d"), .is_delete = true};
    CHECK_RC(kvs_do(t, s->chan, &req), 0);
    CHECK_RC(kv_retrieve(t, s->chan, kvs_str("a"), buf, sizeof(buf), &len), 0);
    CHECK(len == 5);
    CHECK_RC(kv_stat(t, s->chan, kvs_str("d"), NULL, NULL), -ENOENT);
    /* One bad item, and nothing happens. */
    items[3] = (struct kv_batch_item){.key = kvs_str(""), .is_delete = true};
    CHECK_RC(kvs_do(t, s->chan, &req), -EINVAL);
    CHECK_RC(kv_stat(t, s->chan, kvs_str("d"), NULL, NULL), -ENOENT);
    req.nbatch = 0;
    CHECK_RC(kvs_do(t, s->chan, &req), 0);
    return 0;
}

static int snap_sees(struct rt_task *t, struct kvs *s, struct kv_snap *snap, struct bytes key,
                     uint64_t tag, uint64_t len)
{
    CLEANUP(free_p) uint8_t *buf = malloc(len + 1);
    struct iovec iov = {.iov_base = buf, .iov_len = len + 1};
    struct kv_req req;
    int rc;

    kvs_prepare(s, t, &req, KV_RETRIEVE, key, NULL);
    req.snap = snap;
    req.iov = &iov;
    req.iovcnt = 1;
    req.len = len + 1;
    rc = kvs_do(t, s->chan, &req);
    if (tag == 0) {
        CHECK_RC(rc, -ENOENT);
        return 0;
    }
    CHECK_RC(rc, 0);
    CHECK(req.value_len == len);
    CHECK(kvs_is(buf, tag, 0, len));
    return 0;
}

/* One snapshot between any two changes of a key; each goes on seeing what was there. */
static int snapshots_len(struct rt_task *t, struct kvs *s, uint64_t len)
{
    static const uint64_t tags[] = {0, 1, 2, 0, 0, 3, 4, 0};
    struct kv_snap *snap[ARRAY_LEN(tags)];
    struct bytes key = kvs_str("snapped");
    struct kv_req req;

    for (unsigned i = 0; i < ARRAY_LEN(tags); i++) {
        if (tags[i] != 0)
            CHECK_RC(kvs_put(t, s, s->chan, key, tags[i], len, 0), 0);
        else
            CHECK_RC(kv_delete(t, s->chan, key), i > 0 && tags[i - 1] != 0 ? 0 : -ENOENT);
        kvs_prepare(s, t, &req, KV_SNAP_OPEN, kvs_str(""), NULL);
        CHECK_RC(kvs_do(t, s->chan, &req), 0);
        snap[i] = req.snap;
    }
    /* Closed from the middle outwards: what each pins moves to its neighbours or goes. */
    for (unsigned n = 0; n < ARRAY_LEN(tags); n++) {
        unsigned gone = (3 + n * 5) % ARRAY_LEN(tags);

        for (unsigned i = 0; i < ARRAY_LEN(tags); i++) {
            if (snap[i] != NULL)
                CHECK_RC(snap_sees(t, s, snap[i], key, tags[i], len), 0);
        }
        kvs_prepare(s, t, &req, KV_SNAP_CLOSE, kvs_str(""), NULL);
        req.snap = take_ptr(&snap[gone]);
        CHECK_RC(kvs_do(t, s->chan, &req), 0);
    }
    return 0;
}

/* More versions than one step frees. */
#define MANY 1000 /* more than one log block and one page of the index */

static int snapshots_many(struct rt_task *t, struct kvs *s)
{
    struct kv_req req;
    uint64_t used, after, keys;
    char key[32];

    CHECK_RC(kv_usage(t, s->dev, &used, &keys), 0);
    for (unsigned round = 1; round < 3; round++) {
        for (unsigned i = 0; i < MANY; i++) {
            snprintf(key, sizeof(key), "many%u", i);
            CHECK_RC(kvs_put(t, s, s->chan, kvs_str(key), round, 50, 0), 0);
        }
        if (round == 1) {
            kvs_prepare(s, t, &req, KV_SNAP_OPEN, kvs_str(""), NULL);
            CHECK_RC(kvs_do(t, s->chan, &req), 0);
        }
    }
    CHECK_RC(kvs_empty(t, s, s->chan), 0);
    for (unsigned i = 0; i < MANY; i += 100) {
        snprintf(key, sizeof(key), "many%u", i);
        CHECK_RC(snap_sees(t, s, req.snap, kvs_str(key), 1, 50), 0);
    }
    req.op = KV_SNAP_CLOSE;
    CHECK_RC(kvs_do(t, s->chan, &req), 0);
    CHECK_RC(kv_usage(t, s->dev, &after, &keys), 0);
    CHECK(after <= used);
    return 0;
}

static int snapshots(struct rt_task *t, struct kvs *s)
{
    static const uint64_t lens[] = {0, 10, 4096, 9000, 200000};

    if (!kvs_has(s, KV_CAP_SNAPSHOT) || s->faulty)
        return 0;
    for (unsigned i = 0; i < ARRAY_LEN(lens); i++)
        CHECK_RC(snapshots_len(t, s, lens[i]), 0);
    return snapshots_many(t, s);
}

#define FULL_REFUSED 40 /* stores in a row: then it is full */

/* Fills the device up, when it says how large it is and that is not much. */
static int full(struct rt_task *t, struct kvs *s)
{
    uint64_t size = kv_info(s->dev)->size_bytes, used, after, n;
    bool stored[1000] = {false};
    unsigned i = 0, refused = 0;
    char key[32];

    if (size == 0 || size > 256 * MIB || s->faulty)
        return 0;
    CHECK_RC(kv_usage(t, s->dev, &used, &n), 0);
    /* A device may have parts, of which one is full before another. */
    for (; refused < FULL_REFUSED && i < ARRAY_LEN(stored); i++) {
        int rc;

        snprintf(key, sizeof(key), "%u", i);
        rc = kvs_put(t, s, s->chan, kvs_str(key), i + 1, 500000 + i, KV_F_MUST_NOT_EXIST);
        CHECK(rc == 0 || rc == -ENOSPC);
        stored[i] = rc == 0;
        refused = rc == 0 ? 0 : refused + 1;
    }
    CHECK(refused == FULL_REFUSED);
    CHECK_RC(kvs_get_is(t, s, s->chan, kvs_str(key), 0, 0), 1);
    CHECK_RC(kvs_put(t, s, s->chan, kvs_str("0"), 99, 600000, 0), -ENOSPC);
    CHECK_RC(kvs_put_stream(t, s, s->chan, kvs_str("0"), 99, 3000000, 70000, 0, false), -ENOSPC);
    for (unsigned k = 0; k < i; k++) {
        if (!stored[k])
            continue;
        snprintf(key, sizeof(key), "%u", k);
        CHECK_RC(kvs_get_is(t, s, s->chan, kvs_str(key), k + 1, 500000 + k), 1);
        CHECK_RC(kv_delete(t, s->chan, kvs_str(key)), 0);
    }
    CHECK_RC(kv_usage(t, s->dev, &after, &n), 0);
    CHECK(n == 0);
    CHECK(after <= used + 65536);
    return 0;
}

static int keeps(struct rt_task *t, struct kvs *s)
{
    struct kv_dev *dev;

    CHECK_RC(AGAIN(kvs_put(t, s, s->chan, kvs_str("kept"), 5, 100000, 0)), 0);
    CHECK_RC(AGAIN(kv_flush(t, s->chan)), 0);
    if (!s->keeps)
        return 0;
    kv_chan_put(t, s->chan);
    kv_close(t, s->dev);
    CHECK_RC(kv_open(t, s->uri, &dev, NULL), 0);
    s->dev = dev;
    CHECK_RC(kv_chan_get(t, dev, &s->chan), 0);
    CHECK_RC(AGAIN(kvs_get_is(t, s, s->chan, kvs_str("kept"), 5, 100000)), 1);
    return 0;
}

static int statistics(struct rt_task *t, struct kvs *s)
{
    CLEANUP(free_p) struct kv_stats *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));

    CHECK_RC(kv_stats(t, s->dev, a), 0);
    CHECK(kvs_put(t, s, s->chan, kvs_str("st"), 5, 1000, 0) == 0 || s->faulty);
    (void)kv_stat(t, s->chan, kvs_str("absent"), NULL, NULL);
    CHECK_RC(kv_stats(t, s->dev, b), 0);
    CHECK(b->op[KV_STORE].ops == a->op[KV_STORE].ops + 1);
    CHECK(b->op[KV_STORE].bytes == a->op[KV_STORE].bytes + 1000 || s->faulty);
    CHECK(b->op[KV_STAT].ops == a->op[KV_STAT].ops + 1);
    CHECK(b->op[KV_STAT].errors == a->op[KV_STAT].errors + 1);
    CHECK(b->op[KV_STAT].latency_ns.count == a->op[KV_STAT].latency_ns.count + 1);
    return 0;
}

const struct kvs_test kvs_basic_tests[] = {
    {"refusals", refusals},
    {"sizes", sizes},
    {"keys", keys},
    {"flags", flags},
    {"late-conditions", late_conditions},
    {"versions", versions},
    {"appends", appends},
    {"ranges", ranges},
    {"pinned", pinned},
    {"aborts", aborts},
    {"batches", batches},
    {"snapshots", snapshots},
    {"full", full},
    {"keeps", keeps},
    {"statistics", statistics},
    {NULL, NULL},
};
