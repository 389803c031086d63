/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large values against a model: stored whole, streamed, appended to, read in parts and while they
 * change; that live bytes are exact; that damage is seen; that segments of chunks can be emptied.
 */
#include "kv/drivers/blobkv/large.h"
#include "kv/drivers/blobkv/shards.h"
#include "kv/drivers/blobkv/test_rng.h"

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define KEYS 10u
#define VALUE_MAX (3u * 1024 * 1024)
#define PIECES 6u

struct test {
    const char *dev_uri, *uri;
    unsigned ops;
    struct blk_dev *blk;
    struct kv_dev *kv;
    struct kv_chan *chan;
    struct rng rng;
    uint8_t *value[KEYS]; /* as they have to be; 4096-aligned */
    uint32_t len[KEYS];
    bool there[KEYS];
    uint64_t version[KEYS];
    uint8_t *buf; /* VALUE_MAX and some: what is stored or read */
    int failed;   /* line of the first check that did not hold */
};

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            if (x->failed == 0)                                                                    \
                x->failed = __LINE__;                                                              \
            return -EINVAL;                                                                        \
        }                                                                                          \
    } while (0)
#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        if (rc_ < 0 && x->failed == 0) {                                                           \
            x->failed = __LINE__;                                                                  \
            fprintf(stderr, "line %d: %s\n", __LINE__, err_str(rc_));                              \
        }                                                                                          \
        if (rc_ < 0)                                                                               \
            return rc_;                                                                            \
    } while (0)

static struct bkv *store_of(const struct test *x)
{
    return ((struct bkv_shards *)kv_driver_dev(x->kv))->shard[0];
}

static struct bytes key_of(unsigned k)
{
    static const char names[KEYS][12] = {"a", "b", "c", "large-d", "large-e",
                                         "f", "g", "h", "i",       "a long key"};

    return bytes_of_str(names[k]);
}

static int run(struct rt_task *t, struct test *x, struct kv_req *req)
{
    rt_req_init_task(&req->req, t);
    kv_submit(x->chan, req);
    return rt_wait(t, &req->req);
}

/* Half of it is easily compressed. */
static void fill(struct test *x, uint8_t *p, uint32_t len)
{
    for (uint32_t i = 0; i < len; i += 8) {
        uint64_t v = (i & 0x1000) != 0 ? rng_u64(&x->rng) : i / 512;

        memcpy(p + i, &v, MIN(8u, len - i));
    }
}

static uint32_t some_len(struct test *x, uint32_t max)
{
    static const uint32_t edges[] = {0,     1,          BKV_INLINE_MAX, BKV_INLINE_MAX + 1,
                                     65536, 256 * 1024, 1024 * 1024,    1024 * 1024 + 1};
    uint32_t len = edges[rng_below(&x->rng, ARRAY_LEN(edges))];

    if (rng_below(&x->rng, 2) != 0)
        len = 1u << rng_below(&x->rng, 22);
    if (rng_below(&x->rng, 2) != 0)
        len += rng_below(&x->rng, len / 2 + 2);
    return MIN(len, max);
}

/* `len` bytes at p, in pieces that sometimes are whole sectors. */
static unsigned cut(struct test *x, uint8_t *p, uint64_t len, struct iovec *iov)
{
    uint32_t grain = rng_below(&x->rng, 2) != 0 ? 4096 : 1;
    unsigned n = 0;

    while (n < PIECES - 1 && rng_below(&x->rng, 3) != 0) {
        uint64_t some = rng_below(&x->rng, (uint32_t)len + 1) / grain * grain;

        iov[n++] = (struct iovec){p, some};
        p += some;
        len -= some;
    }
    iov[n++] = (struct iovec){p, len};
    return n;
}

/* A place in the buffer, aligned or not. */
static uint8_t *place_in_buf(struct test *x)
{
    return x->buf + (rng_below(&x->rng, 2) != 0 ? 0 : 1 + rng_below(&x->rng, 4000));
}

/* Writes `len` bytes at p as a stream; -ECANCELED: it was aborted. */
static int stream_put(struct rt_task *t, struct test *x, unsigned k, uint8_t *p, uint32_t len,
                      uint32_t flags, uint64_t *out_version)
{
    bool unknown = rng_below(&x->rng, 2) != 0, stop = rng_below(&x->rng, 6) == 0;
    struct kv_req req = {.op = KV_STORE_OPEN, .key = key_of(k), .flags = flags};
    struct iovec iov[PIECES];

    req.len = unknown ? KV_LEN_UNKNOWN : len;
    CHECK_OK(run(t, x, &req));
    req.flags = 0;
    for (uint32_t at = 0; at < len;) {
        uint32_t some = 1 + rng_below(&x->rng, 1u << rng_below(&x->rng, 22));
        uint32_t n = MIN(len - at, some);

        req.op = KV_WRITE;
        req.iov = iov;
        req.iovcnt = cut(x, p + at, n, iov);
        req.len = n;
        CHECK_OK(run(t, x, &req));
        at += n;
    }
    req.op = stop ? KV_ABORT : KV_COMMIT;
    CHECK_OK(run(t, x, &req));
    *out_version = req.version;
    return stop ? -ECANCELED : 0;
}

static int do_put(struct rt_task *t, struct test *x, unsigned k)
{
    uint32_t len = some_len(x, VALUE_MAX);
    uint8_t *p = place_in_buf(x);
    struct iovec iov[PIECES];
    struct kv_req req = {.op = KV_STORE, .key = key_of(k), .iov = iov, .len = len};

    fill(x, p, len);
    if (rng_below(&x->rng, 3) == 0) {
        int rc = stream_put(t, x, k, p, len, 0, &req.version);

        if (rc == -ECANCELED)
            return 0;
        CHECK_OK(rc);
    } else {
        req.iovcnt = cut(x, p, len, iov);
        CHECK_OK(run(t, x, &req));
    }
    memcpy(x->value[k], p, len);
    x->len[k] = len;
    x->there[k] = true;
    x->version[k] = req.version;
    return 0;
}

static int do_append(struct rt_task *t, struct test *x, unsigned k)
{
    uint32_t old = x->there[k] ? x->len[k] : 0;
    uint32_t len = some_len(x, (VALUE_MAX - old) / 2);
    uint8_t *p = place_in_buf(x);
    struct iovec iov[PIECES];
    struct kv_req req = {
        .op = KV_STORE, .key = key_of(k), .iov = iov, .len = len, .flags = KV_F_APPEND};

    fill(x, p, len);
    if (rng_below(&x->rng, 3) == 0) {
        int rc = stream_put(t, x, k, p, len, KV_F_APPEND, &req.version);

        if (rc == -ECANCELED)
            return 0;
        CHECK_OK(rc);
    } else {
        req.iovcnt = cut(x, p, len, iov);
        CHECK_OK(run(t, x, &req));
    }
    memcpy(x->value[k] + old, p, len);
    x->len[k] = old + len;
    x->there[k] = true;
    x->version[k] = req.version;
    return 0;
}

static int do_delete(struct rt_task *t, struct test *x, unsigned k)
{
    int rc = kv_delete(t, x->chan, key_of(k));

    CHECK(rc == (x->there[k] ? 0 : -ENOENT));
    x->there[k] = false;
    return 0;
}

static int do_get(struct rt_task *t, struct test *x, unsigned k, bool whole)
{
    uint8_t *p = place_in_buf(x);
    struct iovec iov[PIECES];
    struct kv_req req = {.op = KV_RETRIEVE, .key = key_of(k), .iov = iov};
    uint64_t want;
    int rc;

    req.off = whole ? 0 : rng_below(&x->rng, x->len[k] + 2);
    req.len = whole ? VALUE_MAX : rng_below(&x->rng, x->len[k] + 2);
    if (!whole && rng_below(&x->rng, 2) != 0)
        req.off = req.off / 4096 * 4096;
    req.iovcnt = cut(x, p, req.len, iov);
    rc = run(t, x, &req);
    CHECK(rc == (x->there[k] ? 0 : -ENOENT));
    if (rc < 0)
        return 0;
    want = req.off < x->len[k] ? MIN(req.len, x->len[k] - req.off) : 0;
    CHECK(req.value_len == x->len[k]);
    CHECK(req.version == x->version[k]);
    CHECK(req.moved == want);
    CHECK(memcmp(p, x->value[k] + req.off, want) == 0);
    return 0;
}

/* A version stays readable while the key gets another one. */
static int do_read_stream(struct rt_task *t, struct test *x, unsigned k)
{
    struct kv_req open = {.op = KV_RETRIEVE_OPEN, .key = key_of(k)}, req;
    uint32_t len = x->len[k];
    uint8_t *was;
    int rc = run(t, x, &open);

    CHECK(rc == (x->there[k] ? 0 : -ENOENT));
    if (rc < 0)
        return 0;
    CHECK(open.value_len == len);
    was = malloc(len + 1);
    memcpy(was, x->value[k], len);
    rc = rng_below(&x->rng, 2) != 0 ? do_put(t, x, k) : do_delete(t, x, k);
    if (rc == 0 && rng_below(&x->rng, 2) != 0)
        rc = kv_usage(t, x->kv, &(uint64_t){0}, &(uint64_t){0}); /* a checkpoint */
    for (unsigned i = 0; i < 5 && rc == 0; i++) {
        uint8_t *p = place_in_buf(x);
        struct iovec iov[PIECES];

        req = (struct kv_req){.op = KV_READ, .stream = open.stream, .iov = iov};
        req.off = i == 0 ? 0 : rng_below(&x->rng, len + 1);
        req.len = i == 0 ? len : rng_below(&x->rng, len + 1);
        req.iovcnt = cut(x, p, req.len, iov);
        rc = run(t, x, &req);
        if (rc == 0 &&
            (req.moved != MIN(req.len, len - req.off) || memcmp(p, was + req.off, req.moved) != 0))
            rc = -EILSEQ;
    }
    free(was);
    req = (struct kv_req){.op = KV_READ_CLOSE, .stream = open.stream};
    CHECK_OK(run(t, x, &req));
    CHECK_OK(rc);
    return 0;
}

/* Long and short values and deletes of some keys, perhaps of one key twice: all of it. */
static int do_batch(struct rt_task *t, struct test *x)
{
    enum { ITEMS = 5 };
    struct kv_batch_item items[ITEMS];
    struct kv_req req = {.op = KV_BATCH, .batch = items, .nbatch = ITEMS};
    unsigned key[ITEMS];
    uint8_t *p = x->buf;

    for (unsigned i = 0; i < ITEMS; i++) {
        uint32_t len = some_len(x, VALUE_MAX / ITEMS);

        key[i] = rng_below(&x->rng, KEYS);
        fill(x, p, len);
        items[i] = (struct kv_batch_item){.key = key_of(key[i]),
                                          .val = bytes_make(p, len),
                                          .is_delete = rng_below(&x->rng, 4) == 0};
        p += len;
    }
    CHECK_OK(run(t, x, &req));
    for (unsigned i = 0; i < ITEMS; i++) {
        unsigned k = key[i];

        x->there[k] = !items[i].is_delete;
        if (!x->there[k])
            continue;
        x->len[k] = (uint32_t)items[i].val.len;
        memcpy(x->value[k], items[i].val.ptr, x->len[k]);
    }
    for (unsigned i = 0; i < ITEMS; i++) {
        unsigned k = key[i];

        if (x->there[k])
            CHECK_OK(kv_stat(t, x->chan, key_of(k), &(uint64_t){0}, &x->version[k]));
    }
    return 0;
}

static int one_op(struct rt_task *t, struct test *x)
{
    unsigned k = rng_below(&x->rng, KEYS);

    switch (rng_below(&x->rng, 11)) {
    case 10:
        return do_batch(t, x);
    case 0:
        return do_delete(t, x, k);
    case 1:
    case 2:
        return do_append(t, x, k);
    case 3:
        return do_read_stream(t, x, k);
    case 4:
    case 5:
    case 6:
        return do_get(t, x, k, rng_below(&x->rng, 2) != 0);
    default:
        return do_put(t, x, k);
    }
}

/* Live bytes of segments of chunks are what the records name, byte for byte. */
static int check_accounting(struct rt_task *t, struct test *x)
{
    struct bkv *s = store_of(x);
    CLEANUP(free_p) uint64_t *want = calloc(s->nsegs, sizeof(*want));
    uint64_t used, nkeys, there = 0;

    CHECK_OK(kv_usage(t, x->kv, &used, &nkeys)); /* a checkpoint: all is in the leaves */
    for (unsigned k = 0; k < KEYS; k++) {
        struct bkv_record_out rec;
        struct bkv_extents e = {0};
        struct rt_buf *buf = NULL;
        struct bkv_place place;

        if (!x->there[k])
            continue;
        there++;
        CHECK_OK(bkv_read_key(t, s, key_of(k), &place, &buf, &rec));
        if (rec.type == BKV_LARGE_VALUE)
            CHECK_OK(bkv_extents_of(t, s, &rec, &e));
        for (unsigned i = 0; i < e.n + e.nlists; i++)
            want[bkv_seg_of(s, le64_get(e.e[i].addr))] += bkv_extent_bytes(s, &e.e[i]);
        CHECK(e.nlists == 0 || e.n > s->large->extents_max);
        bkv_extents_free(&e);
        rt_buf_put(buf);
    }
    CHECK(nkeys == there);
    for (uint32_t i = 1; i < s->nsegs; i++) {
        CHECK(s->seg[i].live_held == 0);
        if (s->seg[i].stream == BKV_LARGE)
            CHECK(bkv_seg_live(&s->seg[i]) == want[i]);
        else
            CHECK(want[i] == 0);
    }
    return 0;
}

static int verify(struct rt_task *t, struct test *x)
{
    for (unsigned k = 0; k < KEYS; k++)
        if (do_get(t, x, k, true) < 0)
            return -EINVAL;
    return check_accounting(t, x);
}

static int open_store(struct rt_task *t, struct test *x)
{
    struct err why = {""};
    int rc = kv_open(t, x->uri, &x->kv, &why);

    if (rc < 0)
        fprintf(stderr, "%s: %s\n", x->uri, why.text);
    CHECK_OK(rc);
    return kv_chan_get(t, x->kv, &x->chan);
}

static void close_store(struct rt_task *t, struct test *x)
{
    kv_chan_put(t, x->chan);
    kv_close(t, x->kv);
}

/* Opens the device as it is now, as after a crash, as *copy; its URI is in `uri` (256 bytes). */
static int open_crashed(struct rt_task *t, struct test *x, struct test *copy, char *uri,
                        struct blk_dev **out_dev)
{
    uint32_t step = MIB / blk_info(x->blk)->block_bytes;
    uint64_t n = blk_info(x->blk)->nblocks;
    struct blk_chan *from, *to;

    *copy = *x;
    snprintf(uri, 256, "%s", x->dev_uri);
    memcpy(strstr(uri, "large"), "other", 5);
    CHECK_OK(blk_open(t, uri, out_dev, NULL));
    CHECK_OK(blk_chan_get(t, x->blk, &from));
    CHECK_OK(blk_chan_get(t, *out_dev, &to));
    for (uint64_t at = 0; at < n; at += step) {
        CHECK_OK(blk_read(t, from, x->buf, at, step));
        CHECK_OK(blk_write(t, to, x->buf, at, step, 0));
    }
    blk_chan_put(t, from);
    blk_chan_put(t, to);
    snprintf(uri, 256, "%s", x->uri);
    memcpy(strstr(uri, "large"), "other", 5);
    copy->uri = uri;
    return open_store(t, copy);
}

/* Everything acknowledged is there, and exact. */
static int check_crash(struct rt_task *t, struct test *x)
{
    struct blk_dev *dev;
    struct test copy;
    char uri[256];
    int rc = open_crashed(t, x, &copy, uri, &dev);

    if (rc == 0) {
        rc = verify(t, &copy);
        close_store(t, &copy);
    }
    x->failed = copy.failed;
    blk_close(t, dev);
    return rc;
}

static int against_the_model(struct rt_task *t, struct test *x)
{
    for (unsigned round = 0; round < 3; round++) {
        CHECK_OK(open_store(t, x));
        CHECK_OK(verify(t, x));
        for (unsigned i = 0; i < x->ops; i++) {
            CHECK_OK(one_op(t, x));
            if (i % 40 == 39)
                CHECK_OK(check_crash(t, x));
        }
        CHECK_OK(verify(t, x));
        close_store(t, x);
    }
    return 0;
}

/* Each segment of chunks is emptied: values and versions stay, and it has nothing left. */
static int evacuation(struct rt_task *t, struct test *x)
{
    struct bkv *s;
    uint32_t emptied = 0;

    CHECK_OK(open_store(t, x));
    for (unsigned i = 0; i < x->ops / 2; i++)
        CHECK_OK(one_op(t, x));
    CHECK_OK(check_accounting(t, x));
    s = store_of(x);
    for (uint32_t i = 1; i < s->nsegs; i++) {
        if (s->seg[i].stream != BKV_LARGE || s->seg[i].state != BKV_SEG_SEALED)
            continue;
        CHECK_OK(bkv_large_evacuate(t, s, i));
        CHECK_OK(check_accounting(t, x));
        CHECK(s->seg[i].stream != BKV_LARGE || bkv_seg_live(&s->seg[i]) == 0);
        emptied++;
    }
    CHECK(emptied > 0);
    CHECK_OK(verify(t, x));
    close_store(t, x);
    CHECK_OK(open_store(t, x));
    CHECK_OK(verify(t, x));
    close_store(t, x);
    return 0;
}

/* Any byte of a chunk turned over is seen by those who read it, and by nobody else. */
static int bit_rot(struct rt_task *t, struct test *x)
{
    static const uint32_t len = 3 * BKV_UNIT_BYTES + 77;
    struct iovec iov = {x->buf, len};
    struct kv_req req = {.op = KV_STORE, .key = key_of(0), .iov = &iov, .iovcnt = 1, .len = len};
    struct rt_buf *buf = NULL;
    struct bkv_record_out rec;
    struct bkv_place place;
    struct bkv_extents e;
    uint8_t *page = aligned_alloc(4096, 4096);
    uint64_t addr, data;
    struct bkv *s;

    CHECK_OK(open_store(t, x));
    s = store_of(x);
    fill(x, x->buf, len);
    CHECK_OK(run(t, x, &req));
    CHECK_OK(bkv_read_key(t, s, key_of(0), &place, &buf, &rec));
    CHECK_OK(bkv_extents_of(t, s, &rec, &e));
    addr = le64_get(e.e[0].addr);
    data = addr + le32_get(e.e[0].head_len);
    CHECK(e.n == 1);
    for (uint32_t at = 0; at < le32_get(e.e[0].head_len) + le32_get(e.e[0].data_len); at += 1999) {
        uint64_t page_addr = (addr + at) & ~4095ull;
        uint32_t unit = addr + at < data ? 0 : (uint32_t)(addr + at - data) / BKV_UNIT_BYTES;

        if (addr + at < data && at > 60)
            continue; /* zeroes that nobody reads */
        CHECK_OK(blob_read(t, s->chan, s->blob, page, page_addr, 4096));
        page[addr + at - page_addr] ^= 0x20;
        CHECK_OK(blob_write(t, s->chan, s->blob, page, page_addr, 4096, 0));
        req = (struct kv_req){
            .op = KV_RETRIEVE, .key = key_of(0), .iov = &iov, .iovcnt = 1, .len = len};
        CHECK(run(t, x, &req) == -EBADMSG);
        for (uint32_t u = 0; u < 4 && addr + at >= data; u++) {
            req.off = u * BKV_UNIT_BYTES + 5;
            req.len = iov.iov_len = 50;
            CHECK(run(t, x, &req) == (u == unit ? -EBADMSG : 0));
        }
        iov.iov_len = len;
        page[addr + at - page_addr] ^= 0x20;
        CHECK_OK(blob_write(t, s->chan, s->blob, page, page_addr, 4096, 0));
    }
    bkv_extents_free(&e);
    free(page);
    rt_buf_put(buf);
    close_store(t, x);
    return 0;
}

/* Turns a byte of the data of a key's value over. */
static int damage(struct rt_task *t, struct test *x, unsigned k)
{
    CLEANUP(free_p) uint8_t *page = aligned_alloc(4096, 4096);
    struct bkv *s = store_of(x);
    struct bkv_record_out rec;
    struct bkv_place place;
    struct bkv_extents e;
    struct rt_buf *buf = NULL;
    uint64_t addr;

    CHECK_OK(bkv_read_key(t, s, key_of(k), &place, &buf, &rec));
    CHECK_OK(bkv_extents_of(t, s, &rec, &e));
    addr = le64_get(e.e[0].addr) + le32_get(e.e[0].head_len) + 5000;
    CHECK_OK(blob_read(t, s->chan, s->blob, page, addr & ~4095ull, 4096));
    page[addr % 4096] ^= 1;
    CHECK_OK(blob_write(t, s->chan, s->blob, page, addr & ~4095ull, 4096, 0));
    bkv_extents_free(&e);
    rt_buf_put(buf);
    return 0;
}

static int put_simply(struct rt_task *t, struct test *x, unsigned k, uint8_t what, uint32_t len)
{
    memset(x->buf, what, len);
    return kv_store(t, x->chan, key_of(k), bytes_make(x->buf, len), 0);
}

static bool is_simply(struct rt_task *t, struct test *x, unsigned k, uint8_t what, uint32_t want)
{
    uint64_t len = 0;
    int rc = kv_retrieve(t, x->chan, key_of(k), x->buf, VALUE_MAX, &len);

    return rc == 0 && len == want && x->buf[0] == what && memcmp(x->buf, x->buf + 1, want - 1) == 0;
}

/* The chunks of what was stored last may be missing after a crash: then it was never stored. Those
 * of what was stored before are known to have been flushed: there it is damage. */
static int chunks_lost(struct rt_task *t, struct test *x)
{
    enum { LEN = 100000 };
    struct blk_dev *dev;
    struct test copy;
    char uri[256];
    uint64_t len;

    CHECK_OK(open_store(t, x));
    CHECK_OK(put_simply(t, x, 0, 'a', LEN));
    CHECK_OK(put_simply(t, x, 1, 'b', LEN));
    CHECK_OK(put_simply(t, x, 0, 'c', LEN));
    CHECK_OK(damage(t, x, 0));
    for (unsigned again = 0; again < 2; again++) {
        CHECK_OK(open_crashed(t, x, &copy, uri, &dev));
        CHECK(is_simply(t, &copy, 0, 'a', LEN));
        CHECK(is_simply(t, &copy, 1, 'b', LEN));
        CHECK_OK(put_simply(t, &copy, 2, 'd', LEN));
        CHECK(is_simply(t, &copy, 2, 'd', LEN));
        close_store(t, &copy);
        CHECK_OK(open_store(t, &copy));
        CHECK(is_simply(t, &copy, 0, 'a', LEN));
        CHECK(is_simply(t, &copy, 2, 'd', LEN));
        close_store(t, &copy);
        blk_close(t, dev);
    }
    CHECK_OK(put_simply(t, x, 3, 'e', LEN));
    CHECK_OK(open_crashed(t, x, &copy, uri, &dev));
    CHECK(kv_retrieve(t, copy.chan, key_of(0), x->buf, VALUE_MAX, &len) == -EBADMSG);
    CHECK(is_simply(t, &copy, 3, 'e', LEN));
    close_store(t, &copy);
    blk_close(t, dev);
    close_store(t, x);
    return 0;
}

/* The same of a list: nobody reads a value whose list is damaged. */
static int bit_rot_of_lists(struct rt_task *t, struct test *x)
{
    static const uint32_t len = MIB;
    struct iovec iov = {x->buf, len};
    struct kv_req req = {.op = KV_STORE, .key = key_of(0), .iov = &iov, .iovcnt = 1, .len = len};
    struct rt_buf *buf = NULL;
    struct bkv_record_out rec;
    struct bkv_place place;
    struct bkv_extents e;
    uint8_t *page = aligned_alloc(4096, 4096);
    uint64_t addr;
    struct bkv *s;

    CHECK_OK(open_store(t, x));
    s = store_of(x);
    fill(x, x->buf, len);
    CHECK_OK(run(t, x, &req));
    CHECK_OK(bkv_read_key(t, s, key_of(0), &place, &buf, &rec));
    CHECK_OK(bkv_extents_of(t, s, &rec, &e));
    CHECK(e.nlists > 1);
    for (unsigned i = 0; i < e.nlists; i++) {
        uint32_t off = i % 2 == 0 ? 8 + i : le32_get(e.e[e.n + i].head_len) + i;

        addr = le64_get(e.e[e.n + i].addr) + off;
        CHECK_OK(blob_read(t, s->chan, s->blob, page, addr & ~4095ull, 4096));
        page[addr % 4096] ^= 1;
        CHECK_OK(blob_write(t, s->chan, s->blob, page, addr & ~4095ull, 4096, 0));
        req = (struct kv_req){
            .op = KV_RETRIEVE, .key = key_of(0), .iov = &iov, .iovcnt = 1, .len = len};
        CHECK(run(t, x, &req) == -EBADMSG);
        page[addr % 4096] ^= 1;
        CHECK_OK(blob_write(t, s->chan, s->blob, page, addr & ~4095ull, 4096, 0));
        CHECK_OK(run(t, x, &req));
    }
    bkv_extents_free(&e);
    free(page);
    rt_buf_put(buf);
    close_store(t, x);
    return 0;
}

/* More than a segment has room for; a batch that is too much even so changes nothing. */
static int big_batches(struct rt_task *t, struct test *x)
{
    enum { ITEMS = 300, LEN = 8000, MANY = 400 };
    struct kv_batch_item *items = calloc(MANY, sizeof(*items));
    struct kv_req req = {.op = KV_BATCH, .batch = items, .nbatch = ITEMS};
    uint8_t *got = malloc(MIB);
    uint64_t len, used, nkeys;
    char(*name)[1000] = calloc(MANY, sizeof(*name));

    CHECK_OK(open_store(t, x));
    fill(x, x->buf, ITEMS * LEN);
    for (unsigned i = 0; i < ITEMS; i++) {
        snprintf(name[i], sizeof(name[i]), "batch-%u", i);
        items[i] = (struct kv_batch_item){.key = bytes_of_str(name[i]),
                                          .val = bytes_make(x->buf + i * LEN, LEN)};
    }
    items[7].val = bytes_make(x->buf, MIB);
    CHECK_OK(run(t, x, &req));
    for (unsigned i = 0; i < ITEMS; i++) {
        CHECK_OK(kv_retrieve(t, x->chan, items[i].key, got, MIB, &len));
        CHECK(len == items[i].val.len && memcmp(got, items[i].val.ptr, len) == 0);
    }
    for (unsigned i = 0; i < MANY; i++) {
        memset(name[i], 'k', sizeof(name[i]));
        snprintf(name[i] + 900, 100, "%u", i);
        items[i] = (struct kv_batch_item){.key = bytes_make(name[i], sizeof(name[i])),
                                          .val = bytes_make(x->buf, 100)};
    }
    req.nbatch = MANY;
    CHECK(run(t, x, &req) == -EFBIG);
    CHECK_OK(kv_usage(t, x->kv, &used, &nkeys));
    CHECK(nkeys == ITEMS);
    free(items);
    free(got);
    free(name);
    close_store(t, x);
    return 0;
}

/* More streams at once than there are buffers, written in turns. */
static int many_streams(struct rt_task *t, struct test *x)
{
    enum { STREAMS = 24, ROUNDS = 20, STEP = 20000 };
    struct kv_stream *stream[STREAMS];
    struct iovec iov = {x->buf, STEP};
    struct kv_req req;
    char name[16];

    CHECK_OK(open_store(t, x));
    for (unsigned i = 0; i < STREAMS; i++) {
        snprintf(name, sizeof(name), "s%u", i);
        req =
            (struct kv_req){.op = KV_STORE_OPEN, .key = bytes_of_str(name), .len = KV_LEN_UNKNOWN};
        CHECK_OK(run(t, x, &req));
        stream[i] = req.stream;
    }
    for (unsigned r = 0; r < ROUNDS; r++) {
        for (unsigned i = 0; i < STREAMS; i++) {
            memset(x->buf, (int)(i + r), STEP);
            req = (struct kv_req){
                .op = KV_WRITE, .stream = stream[i], .iov = &iov, .iovcnt = 1, .len = STEP};
            CHECK_OK(run(t, x, &req));
        }
    }
    for (unsigned i = 0; i < STREAMS; i++) {
        req = (struct kv_req){.op = i % 3 == 0 ? KV_ABORT : KV_COMMIT, .stream = stream[i]};
        CHECK_OK(run(t, x, &req));
    }
    for (unsigned i = 0; i < STREAMS; i++) {
        uint64_t len = 0;
        int rc;

        snprintf(name, sizeof(name), "s%u", i);
        rc = kv_retrieve(t, x->chan, bytes_of_str(name), x->buf, VALUE_MAX, &len);
        CHECK(rc == (i % 3 == 0 ? -ENOENT : 0));
        if (rc < 0)
            continue;
        CHECK(len == ROUNDS * STEP);
        for (uint64_t at = 0; at < len; at++)
            CHECK(x->buf[at] == (uint8_t)(i + at / STEP));
        CHECK_OK(kv_delete(t, x->chan, bytes_of_str(name)));
    }
    CHECK_OK(check_accounting(t, x));
    close_store(t, x);
    return 0;
}

/* How often a text is on the device. */
static int count_on_device(struct rt_task *t, struct test *x, const char *text, unsigned *out_n)
{
    uint32_t bb = blk_info(x->blk)->block_bytes;
    struct blk_chan *chan;

    *out_n = 0;
    CHECK_OK(blk_chan_get(t, x->blk, &chan));
    for (uint64_t at = 0; at < blk_info(x->blk)->nblocks; at += MIB / bb) {
        const uint8_t *p = x->buf, *end = x->buf + MIB;

        CHECK_OK(blk_read(t, chan, x->buf, at, (uint32_t)(MIB / bb)));
        while ((p = memmem(p, (size_t)(end - p), text, strlen(text))) != NULL) {
            (*out_n)++;
            p++;
        }
    }
    blk_chan_put(t, chan);
    return 0;
}

/* Keys and values of records, chunks, leaves and fences: on the device as text, or nowhere. */
static int find_secrets(struct rt_task *t, struct test *x, bool sealed)
{
    unsigned keys, values;
    char name[32];

    CHECK_OK(open_store(t, x));
    for (unsigned i = 0; i < 3000; i++) {
        uint32_t len = i % 100 == 0 ? 100000 : 100;

        snprintf(name, sizeof(name), "secret-key-%04u-of-a-person", i);
        for (uint32_t at = 0; at < len; at += 20)
            memcpy(x->buf + at, "what is confidential", 20);
        CHECK_OK(kv_store(t, x->chan, bytes_of_str(name), bytes_make(x->buf, len), 0));
    }
    close_store(t, x); /* with a checkpoint */
    CHECK_OK(count_on_device(t, x, "secret-key-", &keys));
    CHECK_OK(count_on_device(t, x, "confidential", &values));
    CHECK(sealed ? keys == 0 && values == 0 : keys > 3000 && values > 3000);
    CHECK_OK(open_store(t, x));
    for (unsigned i = 0; i < 3000; i += 7) {
        uint64_t len;

        snprintf(name, sizeof(name), "secret-key-%04u-of-a-person", i);
        CHECK_OK(kv_retrieve(t, x->chan, bytes_of_str(name), x->buf, VALUE_MAX, &len));
        CHECK(len == (i % 100 == 0 ? 100000 : 100));
        CHECK(memcmp(x->buf, "what is confidential", 20) == 0);
    }
    close_store(t, x);
    return 0;
}

static int secrets_in_the_open(struct rt_task *t, struct test *x)
{
    return find_secrets(t, x, false);
}

#ifdef HAVE_LIBCRYPTO
static int secrets_sealed(struct rt_task *t, struct test *x)
{
    return find_secrets(t, x, true);
}
#endif

static int (*body)(struct rt_task *t, struct test *x);

static int task(struct rt_task *t, void *arg)
{
    struct test *x = arg;
    struct err why;
    int rc = blk_open(t, x->dev_uri, &x->blk, &why); /* so that it stays */

    if (rc == 0) {
        rc = body(t, x);
        if (rc == 0)
            blk_close(t, x->blk);
    }
    return rc;
}

/* A test that fails leaves its store open; the program ends then, hard. */
static void run_on(int (*fn)(struct rt_task *t, struct test *x), const char *dev, const char *uri,
                   unsigned ops)
{
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = 4 * MIB};
    struct test x = {.dev_uri = dev, .uri = uri, .ops = ops, .rng = {.state = 7}};
    struct err why = {""};
    int rc;

    x.buf = aligned_alloc(4096, VALUE_MAX + 8192);
    for (unsigned k = 0; k < KEYS; k++)
        x.value[k] = aligned_alloc(4096, VALUE_MAX);
    body = fn;
    rc = rt_run(&cfg, task, &x, &why);
    if (x.failed != 0)
        fprintf(stderr, "the check in line %d did not hold\n", x.failed);
    for (unsigned k = 0; k < KEYS; k++)
        free(x.value[k]);
    free(x.buf);
    assert_int_equal(rc, 0);
}

#define DEV "mem:?name=large&size=160M"
#define DEV_512 DEV "&block_size=512"
#define STORE "blob:?bdev=mem:%3Fname=large"
#define KEY "&key_command=echo%20000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

static void values_are_what_was_stored(void **state)
{
    run_on(against_the_model, DEV, STORE, 150);
}

/* 48 chunks of a value and 16 lists, in the log of which recovery reads them. */
static void values_of_many_extents(void **state)
{
    run_on(against_the_model, DEV_512, STORE "&segment=256K&extents=3", 150);
}

static void values_in_sectors_of_512(void **state)
{
    run_on(against_the_model, DEV_512, STORE "&checkpoint=1M&segment=1M", 150);
}

#ifdef HAVE_LIBZSTD
static void values_compressed(void **state)
{
    run_on(against_the_model, DEV, STORE "&compress=zstd&level=1", 100);
}

static void values_of_many_extents_compressed(void **state)
{
    run_on(against_the_model, DEV, STORE "&segment=256K&extents=3&compress=zstd&level=1", 60);
}
#endif

#ifdef HAVE_LIBCRYPTO
static void values_encrypted(void **state)
{
    run_on(against_the_model, DEV_512, STORE "&segment=2M" KEY, 100);
}

static void values_of_many_extents_encrypted(void **state)
{
    run_on(against_the_model, DEV, STORE "&segment=256K&extents=3" KEY, 60);
}

static void nothing_can_be_read_without_the_key(void **state)
{
    run_on(secrets_sealed, DEV, STORE KEY, 0);
}

static void encrypted_segments_can_be_emptied(void **state)
{
    run_on(evacuation, DEV, STORE "&segment=1M" KEY, 100);
}
#endif

static void without_a_key_it_could_be(void **state)
{
    run_on(secrets_in_the_open, DEV, STORE, 0);
}

static void segments_can_be_emptied(void **state)
{
    run_on(evacuation, DEV_512, STORE "&segment=1M", 200);
}

static void segments_with_lists_can_be_emptied(void **state)
{
    run_on(evacuation, DEV_512, STORE "&segment=256K&extents=3&checkpoint=1M", 200);
}

static void damage_to_a_list_is_seen(void **state)
{
    run_on(bit_rot_of_lists, DEV, STORE "&segment=256K&extents=3", 0);
}

static void batches_may_be_long(void **state)
{
    run_on(big_batches, DEV_512, STORE "&segment=256K", 0);
}

static void what_was_not_flushed_was_not_stored(void **state)
{
    run_on(chunks_lost, DEV, STORE, 0);
    run_on(chunks_lost, DEV_512, STORE, 0);
}

static void damage_is_seen(void **state)
{
    run_on(bit_rot, DEV, STORE, 0);
}

static void many_streams_share_few_buffers(void **state)
{
    run_on(many_streams, DEV, STORE, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_what_was_stored),
        cmocka_unit_test(values_of_many_extents),
        cmocka_unit_test(values_in_sectors_of_512),
#ifdef HAVE_LIBZSTD
        cmocka_unit_test(values_compressed),
        cmocka_unit_test(values_of_many_extents_compressed),
#endif
#ifdef HAVE_LIBCRYPTO
        cmocka_unit_test(values_encrypted),
        cmocka_unit_test(values_of_many_extents_encrypted),
        cmocka_unit_test(nothing_can_be_read_without_the_key),
        cmocka_unit_test(encrypted_segments_can_be_emptied),
#endif
        cmocka_unit_test(without_a_key_it_could_be),
        cmocka_unit_test(segments_can_be_emptied),
        cmocka_unit_test(segments_with_lists_can_be_emptied),
        cmocka_unit_test(batches_may_be_long),
        cmocka_unit_test(what_was_not_flushed_was_not_stored),
        cmocka_unit_test(damage_is_seen),
        cmocka_unit_test(damage_to_a_list_is_seen),
        cmocka_unit_test(many_streams_share_few_buffers),
    };

    return cmocka_run_group_tests_name("kv/blobkv/large", tests, NULL, NULL);
}
