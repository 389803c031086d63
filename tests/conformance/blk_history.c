/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random histories against a model: an array with the version of each block. First one request at
 * a time, each read checked to the byte; then many at once, on every reactor.
 */
#include "blk_suite.h"

#include <string.h>

#define UNKNOWN UINT32_MAX /* unmapped without a promise, or written by a request that failed */
#define REQ_MAX_BYTES (256 * KIB)

struct model {
    uint32_t *version; /* of each block */
    uint64_t nblocks;
    uint32_t next; /* version to write */
};

static void model_fini(struct model *m)
{
    free(m->version);
}

static void model_set(struct model *m, uint64_t lba, uint32_t nblocks, uint32_t version)
{
    for (uint32_t i = 0; i < nblocks; i++)
        m->version[lba + i] = version;
}

/* The model of a device that has just been zeroed. */
static int model_begin(struct rt_task *t, struct suite *s, struct model *m)
{
    m->nblocks = MIN(s->nblocks, 8 * MIB / s->block_bytes);
    m->version = calloc(m->nblocks, sizeof(*m->version));
    m->next = 1;
    CHECK(m->version != NULL);
    CHECK_RC(blk_zero(t, s->chan, 0, m->nblocks, 0), 0);
    return 0;
}

static int model_check(const struct suite *s, const struct model *m, const uint8_t *buf,
                       uint64_t lba, uint32_t nblocks)
{
    for (uint32_t i = 0; i < nblocks; i++, buf += s->block_bytes) {
        uint32_t version = m->version[lba + i];

        if (version == UNKNOWN || pattern_is(buf, lba + i, 1, s->block_bytes, version))
            continue;
        fprintf(stderr, "block %llu is not version %u\n", (unsigned long long)(lba + i), version);
        return -EPROTO;
    }
    return 0;
}

static int model_check_all(struct rt_task *t, struct suite *s, const struct model *m)
{
    uint32_t step = (uint32_t)(MIB / s->block_bytes);
    CLEANUP(free_p) uint8_t *buf = suite_buf(s, step);

    for (uint64_t lba = 0; lba < m->nblocks; lba += step) {
        uint32_t n = (uint32_t)MIN(step, m->nblocks - lba);

        CHECK_RC(blk_read(t, s->chan, buf, lba, n), 0);
        CHECK_RC(model_check(s, m, buf, lba, n), 0);
    }
    return 0;
}

/* Mostly small, sometimes long, never past the end. */
static uint32_t random_range(struct rng *r, const struct suite *s, const struct model *m,
                             uint64_t *out_lba)
{
    uint64_t most = MIN(REQ_MAX_BYTES / s->block_bytes, m->nblocks);
    uint64_t n = 1 + rng_below(r, rng_below(r, 8) == 0 ? most : MIN(most, 8));

    *out_lba = rng_below(r, m->nblocks - n + 1);
    return (uint32_t)n;
}

/* --- one at a time ---------------------------------------------------------------------------- */

static int one_write(struct rt_task *t, struct suite *s, struct model *m, struct rng *r,
                     struct scatter *sc)
{
    uint64_t lba;
    uint32_t n = random_range(r, s, m, &lba);
    struct blk_req req;

    scatter_shape(sc, r, rng_below(r, SCATTER_SHAPES), (size_t)n * s->block_bytes, s->block_bytes);
    pattern_fill(sc->flat, lba, n, s->block_bytes, m->next);
    scatter_load(sc);
    suite_prepare(s, t, &req, BLK_WRITE, lba, n, sc);
    req.flags = rng_below(r, 8) == 0 ? BLK_F_FUA : 0;
    CHECK_RC(suite_do(t, s, &req), 0);
    model_set(m, lba, n, m->next++);
    return 0;
}

static int one_read(struct rt_task *t, struct suite *s, struct model *m, struct rng *r,
                    struct scatter *sc)
{
    uint64_t lba;
    uint32_t n = random_range(r, s, m, &lba);
    struct blk_req req;

    scatter_shape(sc, r, rng_below(r, SCATTER_SHAPES), (size_t)n * s->block_bytes, s->block_bytes);
    suite_prepare(s, t, &req, BLK_READ, lba, n, sc);
    CHECK_RC(suite_do(t, s, &req), 0);
    scatter_unload(sc);
    return model_check(s, m, sc->flat, lba, n);
}

static int one_zero(struct rt_task *t, struct suite *s, struct model *m, struct rng *r)
{
    uint64_t lba;
    uint32_t n = random_range(r, s, m, &lba);
    bool unmap = rng_below(r, 2) == 0;
    struct blk_req req;

    suite_prepare(s, t, &req, unmap ? BLK_UNMAP : BLK_WRITE_ZEROES, lba, n, NULL);
    req.flags = unmap ? 0 : (uint8_t)rng_below(r, 4);
    CHECK_RC(suite_do(t, s, &req), 0);
    if (!unmap || (s->caps & BLK_CAP_UNMAP_ZEROES))
        model_set(m, lba, n, 0);
    else if (s->caps & BLK_CAP_UNMAP)
        model_set(m, lba, n, UNKNOWN);
    return 0;
}

/* Compares blocks with what the model says of them, or with that but for one bit. */
static int one_compare(struct rt_task *t, struct suite *s, struct model *m, struct rng *r,
                       struct scatter *sc, enum blk_op op)
{
    uint64_t lba;
    uint32_t n = random_range(r, s, m, &lba);
    size_t len = (size_t)n * s->block_bytes;
    bool equal = rng_below(r, 2) == 0;
    struct blk_req req;

    for (uint32_t i = 0; i < n; i++) {
        if (m->version[lba + i] == UNKNOWN)
            return 0;
        pattern_fill(sc->flat + (size_t)i * s->block_bytes, lba + i, 1, s->block_bytes,
                     m->version[lba + i]);
    }
    if (!equal)
        sc->flat[rng_below(r, len)] ^= 0x10;
    if (op == BLK_COMPARE_AND_WRITE)
        pattern_fill(sc->flat + len, lba, n, s->block_bytes, m->next);
    scatter_shape(sc, r, rng_below(r, SCATTER_SHAPES), op == BLK_COMPARE_AND_WRITE ? 2 * len : len,
                  s->block_bytes);
    scatter_load(sc);
    suite_prepare(s, t, &req, op, lba, n, sc);
    CHECK_RC(suite_do(t, s, &req), equal ? 0 : -EILSEQ);
    if (op == BLK_COMPARE_AND_WRITE && equal)
        model_set(m, lba, n, m->next++);
    return 0;
}

static int one_step(struct rt_task *t, struct suite *s, struct model *m, struct rng *r,
                    struct scatter *sc)
{
    switch (rng_below(r, 16)) {
    case 0:
    case 1:
        return one_zero(t, s, m, r);
    case 2:
        return one_compare(t, s, m, r, sc, BLK_COMPARE);
    case 3:
        return one_compare(t, s, m, r, sc, BLK_COMPARE_AND_WRITE);
    case 4:
        CHECK_RC(blk_flush(t, s->chan), 0);
        return 0;
    case 5:
    case 6:
    case 7:
    case 8:
    case 9:
        return one_read(t, s, m, r, sc);
    default:
        return one_write(t, s, m, r, sc);
    }
}

static int sequential(struct rt_task *t, struct suite *s)
{
    struct rng r = suite_rng(s, "sequential");
    CLEANUP(scatter_fini) struct scatter sc = {0};
    CLEANUP(model_fini) struct model m = {0};

    CHECK_RC(scatter_init(&sc, 2 * REQ_MAX_BYTES), 0);
    CHECK_RC(model_begin(t, s, &m), 0);
    for (unsigned i = 0; i < s->ops; i++)
        CHECK_RC(one_step(t, s, &m, &r, &sc), 0);
    return model_check_all(t, s, &m);
}

/* What was written before a close is there after it. */
static int reopened(struct rt_task *t, struct suite *s)
{
    struct rng r = suite_rng(s, "reopened");
    CLEANUP(scatter_fini) struct scatter sc = {0};
    CLEANUP(model_fini) struct model m = {0};
    struct err why;

    if (!s->keeps)
        return 0;
    CHECK_RC(scatter_init(&sc, 2 * REQ_MAX_BYTES), 0);
    CHECK_RC(model_begin(t, s, &m), 0);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < s->ops / 16; i++)
            CHECK_RC(one_step(t, s, &m, &r, &sc), 0);
        CHECK_RC(blk_flush(t, s->chan), 0);
        blk_chan_put(t, s->chan);
        blk_close(t, s->dev);
        CHECK_RC(blk_open(t, s->uri, &s->dev, &why), 0);
        CHECK_RC(blk_chan_get(t, s->dev, &s->chan), 0);
        CHECK_RC(model_check_all(t, s, &m), 0);
    }
    return 0;
}

/* --- many at once ----------------------------------------------------------------------------- */

#define DEPTH 32

struct flight {
    struct blk_req req;
    struct scatter sc;
    uint32_t version; /* written; 0 for zeroes */
};

struct party {
    struct suite s; /* with the channel of its reactor */
    struct model m; /* of [first, first + m.nblocks) */
    uint64_t first;
    struct rng r;
    struct flight *flight;
};

/* Begins a random request within the party's blocks. */
static void flight_begin(struct rt_task *t, struct party *p, struct flight *f, bool writes)
{
    uint64_t lba;
    uint32_t n = random_range(&p->r, &p->s, &p->m, &lba);
    size_t len = (size_t)n * p->s.block_bytes;
    bool zero = writes && rng_below(&p->r, 4) == 0;

    lba += p->first;
    f->version = zero ? 0 : p->m.next++;
    scatter_shape(&f->sc, &p->r, rng_below(&p->r, SCATTER_SHAPES), len, p->s.block_bytes);
    if (writes && !zero) {
        pattern_fill(f->sc.flat, lba, n, p->s.block_bytes, f->version);
        scatter_load(&f->sc);
    }
    suite_prepare(&p->s, t, &f->req,
                  zero     ? BLK_WRITE_ZEROES
                  : writes ? BLK_WRITE
                           : BLK_READ,
                  lba, n, zero ? NULL : &f->sc);
    blk_submit(p->s.chan, &f->req);
}

/* Which of the requests wrote the block last is not known: one of those that touched it did. */
static int block_settled(struct party *p, uint64_t block, const uint8_t *data)
{
    uint64_t lba = p->first + block;
    bool touched = false;

    for (unsigned i = 0; i < DEPTH; i++) {
        const struct flight *f = &p->flight[i];

        if (lba < f->req.lba || lba - f->req.lba >= f->req.nblocks)
            continue;
        touched = true;
        if (!pattern_is(data, lba, 1, p->s.block_bytes, f->version))
            continue;
        p->m.version[block] = f->version;
        return 0;
    }
    if (!touched && pattern_is(data, lba, 1, p->s.block_bytes, p->m.version[block]))
        return 0;
    fprintf(stderr, "block %llu holds %s\n", (unsigned long long)lba,
            touched ? "what none of the requests in flight has written"
                    : "another version, and nobody wrote it");
    return -EPROTO;
}

/* Overlapping writes in flight together: each block is whole, and from one of them. */
static int round_of_writes(struct rt_task *t, struct party *p, uint8_t *buf, uint32_t buf_blocks)
{
    for (unsigned i = 0; i < DEPTH; i++)
        flight_begin(t, p, &p->flight[i], true);
    for (unsigned i = 0; i < DEPTH; i++)
        CHECK_RC(rt_wait(t, &p->flight[i].req.req), 0);
    for (uint64_t at = 0; at < p->m.nblocks; at += buf_blocks) {
        uint32_t n = (uint32_t)MIN(buf_blocks, p->m.nblocks - at);

        CHECK_RC(blk_read(t, p->s.chan, buf, p->first + at, n), 0);
        for (uint32_t i = 0; i < n; i++)
            CHECK_RC(block_settled(p, at + i, buf + (size_t)i * p->s.block_bytes), 0);
    }
    return 0;
}

static int round_of_reads(struct rt_task *t, struct party *p)
{
    for (unsigned i = 0; i < DEPTH; i++)
        flight_begin(t, p, &p->flight[i], false);
    for (unsigned i = 0; i < DEPTH; i++) {
        struct flight *f = &p->flight[i];

        CHECK_RC(rt_wait(t, &f->req.req), 0);
        scatter_unload(&f->sc);
        for (uint32_t b = 0; b < f->req.nblocks; b++)
            CHECK(pattern_is(f->sc.flat + (size_t)b * p->s.block_bytes, f->req.lba + b, 1,
                             p->s.block_bytes, p->m.version[f->req.lba - p->first + b]));
    }
    return 0;
}

static int party_run(struct rt_task *t, struct party *p)
{
    uint32_t buf_blocks = (uint32_t)(MIB / p->s.block_bytes);
    CLEANUP(free_p) uint8_t *buf = suite_buf(&p->s, buf_blocks);

    CHECK_RC(blk_zero(t, p->s.chan, p->first, p->m.nblocks, 0), 0);
    for (unsigned i = 0; i < MAX(p->s.ops / DEPTH / 2, 2u); i++) {
        CHECK_RC(round_of_writes(t, p, buf, buf_blocks), 0);
        CHECK_RC(round_of_reads(t, p), 0);
    }
    return 0;
}

/* On the party's reactor: channel, memory, and all of it back. */
static int party_task(struct rt_task *t, void *arg)
{
    struct party *p = arg;
    int rc = blk_chan_get(t, p->s.dev, &p->s.chan);

    if (rc < 0)
        return rc;
    p->m.version = calloc(p->m.nblocks, sizeof(*p->m.version));
    p->m.next = 1;
    p->flight = calloc(DEPTH, sizeof(*p->flight));
    rc = p->m.version != NULL && p->flight != NULL ? 0 : -ENOMEM;
    for (unsigned i = 0; rc == 0 && i < DEPTH; i++)
        rc = scatter_init(&p->flight[i].sc, REQ_MAX_BYTES);
    if (rc == 0)
        rc = party_run(t, p);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < DEPTH; i++)
        scatter_fini(&p->flight[i].sc);
    free(p->flight);
    model_fini(&p->m);
    blk_chan_put(t, p->s.chan);
    return 0;
}

struct remote {
    struct rt_reactor *reactor;
    struct party party;
};

static int remote_task(struct rt_task *t, void *arg)
{
    struct remote *r = arg;

    return rt_on(t, r->reactor, party_task, &r->party);
}

static int concurrent(struct rt_task *t, struct suite *s)
{
    unsigned n = rt_reactors();
    uint64_t share = MIN(s->nblocks / n, 4 * MIB / s->block_bytes);
    CLEANUP(free_p) struct remote *r = calloc(n, sizeof(*r));
    CLEANUP(free_p) struct rt_req *done = calloc(n, sizeof(*done));

    for (unsigned i = 0; i < n; i++) {
        r[i].reactor = rt_reactor(i);
        r[i].party = (struct party){
            .s = *s, .first = i * share, .m.nblocks = share, .r = suite_rng(s, "concurrent")};
        r[i].party.s.count = 0;
        r[i].party.r.state += i;
        rt_req_init_task(&done[i], t);
        CHECK_RC(rt_task_start("party", remote_task, &r[i], &done[i], NULL), 0);
    }
    for (unsigned i = 0; i < n; i++) {
        CHECK_RC(rt_wait(t, &done[i]), 0);
        s->count += r[i].party.s.count;
    }
    return 0;
}

const struct suite_test blk_history_tests[] = {
    {"sequential history", sequential},
    {"closed and opened again", reopened},
    {"concurrent history on each reactor", concurrent},
    {NULL, NULL},
};
