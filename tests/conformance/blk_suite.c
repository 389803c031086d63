/* SPDX-License-Identifier: Apache-2.0 */
/* The runner and what the tests share: patterns, scattered memory, random numbers. */
#include "blk_suite.h"

#include "base/map.h"

#include <string.h>

uint64_t rng_u64(struct rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

struct rng suite_rng(const struct suite *s, const char *name)
{
    struct rng r = {.state = s->seed};

    for (; *name != '\0'; name++)
        r.state = hash_u64(r.state ^ (uint8_t)*name);
    return r;
}

/* --- patterns --------------------------------------------------------------------------------- */

static uint64_t word_of(uint64_t lba, uint32_t version, uint32_t at)
{
    return version == 0 ? 0 : hash_u64(lba << 32 ^ (uint64_t)version << 16 ^ at);
}

void pattern_fill(uint8_t *buf, uint64_t lba, uint32_t nblocks, uint32_t block_bytes,
                  uint32_t version)
{
    for (uint32_t i = 0; i < nblocks; i++, lba++) {
        for (uint32_t at = 0; at < block_bytes; at += 8, buf += 8) {
            uint64_t word = word_of(lba, version, at);

            memcpy(buf, &word, 8);
        }
    }
}

bool pattern_is(const uint8_t *buf, uint64_t lba, uint32_t nblocks, uint32_t block_bytes,
                uint32_t version)
{
    for (uint32_t i = 0; i < nblocks; i++, lba++) {
        for (uint32_t at = 0; at < block_bytes; at += 8, buf += 8) {
            uint64_t word = word_of(lba, version, at);

            if (memcmp(buf, &word, 8) != 0)
                return false;
        }
    }
    return true;
}

/* --- scattered memory ------------------------------------------------------------------------- */

int scatter_init(struct scatter *sc, size_t len_max)
{
    *sc = (struct scatter){.iov_max = 1500};
    /* Pieces of blocks lie a page apart at most; odd ones 64 bytes. */
    sc->memory_bytes = round_up_u64(len_max * 2 + sc->iov_max * 128 + 65536 * 2, 4096);
    sc->memory = aligned_alloc(4096, sc->memory_bytes);
    sc->iov = calloc(sc->iov_max, sizeof(*sc->iov));
    sc->flat = aligned_alloc(4096, round_up_u64(len_max, 4096));
    return sc->memory != NULL && sc->iov != NULL && sc->flat != NULL ? 0 : -ENOMEM;
}

void scatter_fini(struct scatter *sc)
{
    free(sc->memory);
    free(sc->iov);
    free(sc->flat);
    *sc = (struct scatter){0};
}

static size_t piece_bytes(struct rng *r, enum scatter_shape shape, size_t left,
                          uint32_t block_bytes, unsigned entries_left)
{
    size_t n;

    if (shape == SCATTER_ONE || entries_left <= 1)
        return left;
    if (shape == SCATTER_BLOCKS)
        n = block_bytes * (1 + rng_below(r, 4));
    else
        n = rng_below(r, 8) == 0 ? rng_below(r, 16) : 1 + rng_below(r, 3 * block_bytes);
    return MIN(n, left);
}

void scatter_shape(struct scatter *sc, struct rng *r, enum scatter_shape shape, size_t len,
                   uint32_t block_bytes)
{
    uint8_t *at = sc->memory;
    size_t left = len;

    sc->len = len;
    sc->iovcnt = 0;
    memset(sc->memory, 0xee, MIN(sc->memory_bytes, len * 2 + 65536));
    if (shape == SCATTER_ODD)
        at += rng_below(r, 64);
    do {
        size_t n = piece_bytes(r, shape, left, block_bytes, sc->iov_max - sc->iovcnt);
        /* As much as is left over for gaps, so that the memory lasts. */
        size_t spare = (size_t)(sc->memory + sc->memory_bytes - at) - left;
        size_t gap = shape == SCATTER_ODD ? rng_below(r, 64) : 4096 * rng_below(r, 2);

        sc->iov[sc->iovcnt++] = (struct iovec){.iov_base = at, .iov_len = n};
        at += n;
        at += gap <= spare ? gap : 0;
        left -= n;
    } while (left > 0);
}

void scatter_load(struct scatter *sc)
{
    iov_copy_in(sc->iov, sc->iovcnt, 0, sc->flat, sc->len);
}

void scatter_unload(struct scatter *sc)
{
    iov_copy_out(sc->iov, sc->iovcnt, 0, sc->flat, sc->len);
}

/* --- requests --------------------------------------------------------------------------------- */

void suite_prepare(struct suite *s, struct rt_task *t, struct blk_req *req, enum blk_op op,
                   uint64_t lba, uint32_t nblocks, const struct scatter *sc)
{
    __atomic_fetch_add(&s->count, 1, __ATOMIC_RELAXED);
    memset(req, 0xa5, sizeof(*req)); /* what the layer does not set it must not read */
    rt_req_init_task(&req->req, t);
    req->op = (uint8_t)op;
    req->flags = 0;
    req->lba = lba;
    req->nblocks = nblocks;
    req->iov = sc != NULL ? sc->iov : NULL;
    req->iovcnt = sc != NULL ? sc->iovcnt : 0;
}

int suite_do(struct rt_task *t, struct suite *s, struct blk_req *req)
{
    blk_submit(s->chan, req);
    return rt_wait(t, &req->req);
}

uint8_t *suite_buf(const struct suite *s, uint32_t nblocks)
{
    uint8_t *buf = aligned_alloc(4096, round_up_u64((uint64_t)nblocks * s->block_bytes, 4096));

    must(buf != NULL);
    return buf;
}

/* --- the runner ------------------------------------------------------------------------------- */

static int run_one(struct rt_task *t, struct suite *s, const struct suite_test *test)
{
    struct err why = {""};
    int rc, test_rc;

    rc = blk_open(t, s->uri, &s->dev, &why);
    if (rc < 0) {
        fprintf(stderr, "%s: cannot be opened: %s\n", s->uri, why.text);
        return rc;
    }
    rc = blk_chan_get(t, s->dev, &s->chan);
    CHECK_RC(rc, 0);
    s->block_bytes = blk_info(s->dev)->block_bytes;
    s->nblocks = blk_info(s->dev)->nblocks;
    s->caps = blk_info(s->dev)->caps;
    test_rc = test->fn(t, s);
    if (test_rc < 0) {
        fprintf(stderr, "not ok: %s: %s\n", s->uri, test->name);
        return test_rc; /* what it left open stays open: the program ends */
    }
    blk_chan_put(t, s->chan);
    blk_close(t, s->dev);
    return 0;
}

int blk_suite_run(struct rt_task *t, struct suite *s)
{
    static const struct suite_test *const tables[] = {blk_basic_tests, blk_history_tests,
                                                      blk_race_tests};

    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        for (const struct suite_test *test = tables[i]; test->name != NULL; test++) {
            int rc = run_one(t, s, test);

            if (rc < 0)
                return rc;
            printf("ok: %s\n", test->name);
        }
    }
    return 0;
}
