/* SPDX-License-Identifier: Apache-2.0 */
/* The runner and what the tests share: values, scattered memory, random numbers, races. */
#include "kv_suite.h"

#include <string.h>

struct kvs_rng kvs_rng(const struct kvs *s, const char *name)
{
    struct kvs_rng r = {.state = s->seed};

    for (; *name != '\0'; name++)
        r.state = hash_u64(r.state ^ (uint8_t)*name);
    return r;
}

uint64_t kvs_len(const struct kvs *s, struct kvs_rng *r)
{
    static const uint64_t edges[] = {0,    1,    2,     100,   4095,   4096,   4097,   8127,
                                     8128, 8192, 65535, 65536, 131071, 131072, 131073, 3000000};
    uint64_t len;

    /* Large ones are rare: they take time and find little more. */
    switch (kvs_below(r, 16)) {
    case 0:
        len = edges[kvs_below(r, ARRAY_LEN(edges))];
        break;
    case 1:
    case 2:
        len = kvs_below(r, 200000);
        break;
    case 3:
    case 4:
    case 5:
        len = edges[kvs_below(r, 10)];
        break;
    default:
        len = kvs_below(r, 6000);
        break;
    }
    return MIN(len, s->len_max);
}

/* --- values ----------------------------------------------------------------------------------- */

static uint64_t word_of(uint64_t tag, uint64_t i)
{
    return (tag * 0x9e3779b97f4a7c15u) ^ (i * 0xd6e8feb86659fd93u) ^ (i << 32);
}

void kvs_fill(uint8_t *buf, uint64_t tag, uint64_t off, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint64_t word = word_of(tag, (off + i) / 8);
        size_t in = (off + i) % 8, n = MIN(8 - in, len - i);

        memcpy(buf + i, (uint8_t *)&word + in, n);
        i += n;
    }
}

bool kvs_is(const uint8_t *buf, uint64_t tag, uint64_t off, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint64_t word = word_of(tag, (off + i) / 8);
        size_t in = (off + i) % 8, n = MIN(8 - in, len - i);

        if (memcmp(buf + i, (uint8_t *)&word + in, n) != 0)
            return false;
        i += n;
    }
    return true;
}

/* --- scattered memory ------------------------------------------------------------------------- */

void kvs_mem_init(struct kvs_mem *m, size_t len_max)
{
    *m = (struct kvs_mem){.max = len_max};
    m->memory = malloc(len_max + ARRAY_LEN(m->iov) * 64);
    m->flat = malloc(len_max + 1);
    must(m->memory != NULL);
    must(m->flat != NULL);
}

void kvs_mem_fini(struct kvs_mem *m)
{
    free(m->memory);
    free(m->flat);
    *m = (struct kvs_mem){0};
}

void kvs_mem_cut(struct kvs_mem *m, struct kvs_rng *r, size_t len)
{
    uint8_t *at = m->memory + kvs_below(r, 16);
    unsigned pieces = kvs_below(r, 2) == 0 ? 1 : 2 + (unsigned)kvs_below(r, 60);

    must(len <= m->max);
    m->len = len;
    m->iovcnt = 0;
    for (unsigned i = 1; i <= pieces; i++) {
        size_t n = i == pieces ? len : (size_t)kvs_below(r, MIN(len, 2 * len / pieces + 1) + 1);

        m->iov[m->iovcnt++] = (struct iovec){.iov_base = at, .iov_len = n};
        at += n + kvs_below(r, 40);
        len -= n;
    }
}

void kvs_mem_load(struct kvs_mem *m)
{
    iov_copy_in(m->iov, m->iovcnt, 0, m->flat, m->len);
}

void kvs_mem_unload(struct kvs_mem *m)
{
    iov_copy_out(m->iov, m->iovcnt, 0, m->flat, m->len);
}

/* --- requests --------------------------------------------------------------------------------- */

void kvs_prepare(struct kvs *s, struct rt_task *t, struct kv_req *req, enum kv_op op,
                 struct bytes key, const struct kvs_mem *m)
{
    __atomic_fetch_add(&s->count, 1, __ATOMIC_RELAXED);
    memset(req, 0xa5, sizeof(*req)); /* what the layer does not set it must not read */
    rt_req_init_task(&req->req, t);
    req->op = (uint8_t)op;
    req->flags = 0;
    req->key = key;
    req->prefix = bytes_make("", 0);
    req->iov = m != NULL ? m->iov : NULL;
    req->iovcnt = m != NULL ? m->iovcnt : 0;
    req->off = 0;
    req->len = m != NULL ? m->len : 0;
    req->version = 0;
    req->stream = NULL;
    req->snap = NULL;
    req->batch = NULL;
    req->nbatch = 0;
}

int kvs_do(struct rt_task *t, struct kv_chan *chan, struct kv_req *req)
{
    kv_submit(chan, req);
    return rt_wait(t, &req->req);
}

int kvs_put(struct rt_task *t, struct kvs *s, struct kv_chan *chan, struct bytes key, uint64_t tag,
            uint64_t len, uint32_t flags)
{
    CLEANUP(free_p) uint8_t *buf = malloc(len + 1);

    must(buf != NULL);
    kvs_fill(buf, tag, 0, len);
    __atomic_fetch_add(&s->count, 1, __ATOMIC_RELAXED);
    return kv_store(t, chan, key, bytes_make(buf, len), flags);
}

int kvs_get_is(struct rt_task *t, struct kvs *s, struct kv_chan *chan, struct bytes key,
               uint64_t tag, uint64_t len)
{
    CLEANUP(free_p) uint8_t *buf = malloc(len + 1);
    uint64_t got;
    int rc;

    must(buf != NULL);
    __atomic_fetch_add(&s->count, 1, __ATOMIC_RELAXED);
    rc = kv_retrieve(t, chan, key, buf, len, &got);
    if (rc == -ENOENT)
        return tag == 0;
    if (rc < 0)
        return rc;
    return tag != 0 && got == len && kvs_is(buf, tag, 0, len);
}

int kvs_put_stream(struct rt_task *t, struct kvs *s, struct kv_chan *chan, struct bytes key,
                   uint64_t tag, uint64_t len, size_t piece, uint32_t flags, bool unknown)
{
    struct kv_req req;
    struct kvs_mem m;
    struct kvs_rng r = {.state = tag};
    int rc, write_rc = 0;

    kvs_prepare(s, t, &req, KV_STORE_OPEN, key, NULL);
    req.flags = flags;
    req.len = unknown ? KV_LEN_UNKNOWN : len;
    rc = kvs_do(t, chan, &req);
    if (rc < 0)
        return rc;
    kvs_mem_init(&m, piece);
    for (uint64_t off = 0; off < len && write_rc == 0; off += m.len) {
        kvs_mem_cut(&m, &r, (size_t)MIN(piece, len - off));
        kvs_fill(m.flat, tag, off, m.len);
        kvs_mem_load(&m);
        req.op = KV_WRITE;
        req.flags = 0;
        req.iov = m.iov;
        req.iovcnt = m.iovcnt;
        req.len = m.len;
        write_rc = kvs_do(t, chan, &req);
    }
    kvs_mem_fini(&m);
    req.op = KV_COMMIT;
    req.flags = 0;
    rc = kvs_do(t, chan, &req);
    CHECK(req.stream == NULL);
    if (write_rc < 0)
        CHECK(rc == write_rc); /* a commit after a failed write says why */
    return rc;
}

int kvs_empty(struct rt_task *t, struct kvs *s, struct kv_chan *chan)
{
    CLEANUP(free_p) uint8_t *buf = malloc(65536);
    bool more = true;
    size_t moved;

    must(buf != NULL);
    while (more) {
        struct kv_list_iter it;
        struct bytes key;
        int rc = kv_list(t, chan, kvs_str(""), kvs_str(""), 0, buf, 65536, &moved, &more);

        if (rc == -EIO && s->faulty)
            continue;
        CHECK_RC(rc, 0);
        for (it = kv_list_begin(buf, moved); kv_list_next(&it, &key);) {
            do
                rc = kv_delete(t, chan, key);
            while (rc == -EIO && s->faulty);
            CHECK(rc == 0 || (rc == -ENOENT && s->faulty));
        }
    }
    return 0;
}

/* --- races ------------------------------------------------------------------------------------ */

static int racer_here(struct rt_task *t, void *arg)
{
    struct kvs_racer *r = arg;
    struct kv_chan *chan;
    int rc = kv_chan_get(t, r->s->dev, &chan);

    if (rc < 0)
        return rc;
    rc = r->fn(t, r, chan);
    kv_chan_put(t, chan);
    return rc;
}

static int racer(struct rt_task *t, void *arg)
{
    struct kvs_racer *r = arg;
    int rc = rt_on(t, r->reactor, racer_here, r);

    __atomic_fetch_sub(r->running, 1, __ATOMIC_RELAXED);
    return rc;
}

int kvs_race(struct rt_task *t, struct kvs *s, unsigned per_reactor, void *shared,
             int (*fn)(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan))
{
    unsigned n = rt_reactors() * per_reactor, running = n;
    CLEANUP(free_p) struct kvs_racer *r = calloc(n, sizeof(*r));
    CLEANUP(free_p) struct rt_req *done = calloc(n, sizeof(*done));
    int rc = 0;

    must(r != NULL);
    must(done != NULL);
    for (unsigned i = 0; i < n; i++) {
        r[i] = (struct kvs_racer){.s = s,
                                  .reactor = rt_reactor(i % rt_reactors()),
                                  .running = &running,
                                  .idx = i,
                                  .shared = shared,
                                  .rng.state = hash_u64(s->seed + i + 1),
                                  .fn = fn};
        rt_req_init_task(&done[i], t);
        CHECK_RC(rt_task_start("racer", racer, &r[i], &done[i], NULL), 0);
    }
    for (unsigned i = 0; i < n; i++) {
        int one = rt_wait(t, &done[i]);

        if (one < 0 && one != -EPROTO)
            fprintf(stderr, "racer %u: %s\n", i, err_str(one));
        rc = one < 0 ? -EPROTO : rc;
    }
    return rc;
}

/* --- the runner ------------------------------------------------------------------------------- */

static int run_one(struct rt_task *t, struct kvs *s, const struct kvs_test *test)
{
    struct err why = {""};
    int rc;

    rc = kv_open(t, s->uri, &s->dev, &why);
    if (rc < 0) {
        fprintf(stderr, "%s: cannot be opened: %s\n", s->uri, why.text);
        return rc;
    }
    rc = kv_chan_get(t, s->dev, &s->chan);
    CHECK_RC(rc, 0);
    s->key_max = kv_info(s->dev)->key_max;
    s->val_max = kv_info(s->dev)->val_max;
    s->caps = kv_info(s->dev)->caps;
    if (s->len_max == 0 || s->len_max > s->val_max)
        s->len_max = MIN(s->val_max, 4 * MIB);
    rc = kvs_empty(t, s, s->chan);
    if (rc == 0)
        rc = test->fn(t, s);
    if (rc < 0) {
        fprintf(stderr, "not ok: %s: %s\n", s->uri, test->name);
        return rc; /* what it left open stays open: the program ends */
    }
    kv_chan_put(t, s->chan);
    kv_close(t, s->dev);
    return 0;
}

int kvs_run(struct rt_task *t, struct kvs *s)
{
    static const struct kvs_test *const tables[] = {kvs_basic_tests, kvs_history_tests,
                                                    kvs_list_tests, kvs_race_tests};

    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        for (const struct kvs_test *test = tables[i]; test->name != NULL; test++) {
            uint64_t begin = rt_now_exact();
            int rc;

            if (s->only != NULL && strcmp(s->only, test->name) != 0)
                continue;
            rc = run_one(t, s, test);
            if (rc < 0)
                return rc;
            printf("ok: %s (%.2f s)\n", test->name, (double)(rt_now_exact() - begin) / 1e9);
        }
    }
    return 0;
}
