/* SPDX-License-Identifier: Apache-2.0 */
/* One thing at a time: edges, errors, shapes of memory, each operation's meaning. */
#include "blk_suite.h"

#include <string.h>

#define BIG_BYTES (3 * MIB) /* more than any layer below moves at a time */

static int geometry(struct rt_task *t, struct suite *s)
{
    const struct blk_info *info = blk_info(s->dev);

    CHECK(info->block_bytes >= 512 && info->block_bytes <= 65536);
    CHECK((info->block_bytes & (info->block_bytes - 1)) == 0);
    CHECK(info->nblocks * info->block_bytes >= 4 * MIB); /* what the other tests need */
    CHECK(!bytes_are_zero(info->uuid, 16));
    CHECK(!(info->caps & BLK_CAP_READ_ONLY));
    return 0;
}

static int edges(struct rt_task *t, struct suite *s)
{
    CLEANUP(free_p) uint8_t *buf = suite_buf(s, 4);
    uint64_t last = s->nblocks - 1;

    pattern_fill(buf, 0, 1, s->block_bytes, 1);
    pattern_fill(buf + s->block_bytes, last, 1, s->block_bytes, 2);
    CHECK_RC(blk_write(t, s->chan, buf, 0, 1, 0), 0);
    CHECK_RC(blk_write(t, s->chan, buf + s->block_bytes, last, 1, 0), 0);
    memset(buf, 0xee, s->block_bytes * 2);
    CHECK_RC(blk_read(t, s->chan, buf, 0, 1), 0);
    CHECK_RC(blk_read(t, s->chan, buf + s->block_bytes, last, 1), 0);
    CHECK(pattern_is(buf, 0, 1, s->block_bytes, 1));
    CHECK(pattern_is(buf + s->block_bytes, last, 1, s->block_bytes, 2));
    return 0;
}

/* Wrong ranges and lengths are refused by every operation and change nothing. */
static int refusals(struct rt_task *t, struct suite *s)
{
    CLEANUP(free_p) uint8_t *buf = suite_buf(s, 4);
    const struct {
        uint64_t lba;
        uint32_t nblocks;
        int rc;
    } bad[] = {
        {s->nblocks, 1, -ERANGE},        {s->nblocks - 1, 2, -ERANGE}, {UINT64_MAX, 1, -ERANGE},
        {UINT64_MAX - 1, 2, -ERANGE},    {UINT64_MAX, 2, -ERANGE},     {0, 0, -EINVAL},
        {UINT64_MAX >> 9, 512, -ERANGE}, {0, UINT32_MAX, -ERANGE},
    };
    struct blk_req req;

    pattern_fill(buf, s->nblocks - 1, 1, s->block_bytes, 7);
    CHECK_RC(blk_write(t, s->chan, buf, s->nblocks - 1, 1, 0), 0);
    for (unsigned op = 0; op < BLK_OPS; op++) {
        for (size_t i = 0; op != BLK_FLUSH && i < ARRAY_LEN(bad); i++) {
            struct iovec iov = {.iov_base = buf,
                                .iov_len = (size_t)bad[i].nblocks * s->block_bytes *
                                           (op == BLK_COMPARE_AND_WRITE ? 2 : 1)};

            suite_prepare(s, t, &req, op, bad[i].lba, bad[i].nblocks, NULL);
            req.iov = &iov;
            req.iovcnt = 1;
            CHECK_RC(suite_do(t, s, &req), bad[i].rc);
        }
        if (op == BLK_FLUSH || op == BLK_WRITE_ZEROES || op == BLK_UNMAP)
            continue;
        for (int diff = -1; diff <= 1; diff += 2) {
            struct iovec iov = {.iov_base = buf, .iov_len = s->block_bytes};

            if (op == BLK_COMPARE_AND_WRITE)
                iov.iov_len *= 2;
            iov.iov_len += (size_t)diff;
            suite_prepare(s, t, &req, op, 0, 1, NULL);
            req.iov = &iov;
            req.iovcnt = 1;
            CHECK_RC(suite_do(t, s, &req), -EINVAL);
        }
        suite_prepare(s, t, &req, op, 0, 1, NULL);
        CHECK_RC(suite_do(t, s, &req), -EINVAL);
    }
    CHECK_RC(blk_read(t, s->chan, buf, s->nblocks - 1, 1), 0);
    CHECK(pattern_is(buf, s->nblocks - 1, 1, s->block_bytes, 7));
    return 0;
}

/* Every shape of memory, sizes from one block to more than any layer below moves at a time. */
static int shapes(struct rt_task *t, struct suite *s)
{
    struct rng r = suite_rng(s, "shapes");
    CLEANUP(scatter_fini) struct scatter sc;
    uint32_t most = (uint32_t)(BIG_BYTES / s->block_bytes);
    const uint32_t sizes[] = {1, 2, 3, 16, 33, 129, most / 2, most};
    uint32_t version = 100;

    CHECK_RC(scatter_init(&sc, BIG_BYTES), 0);
    for (unsigned shape = 0; shape < SCATTER_SHAPES * 3; shape++) {
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            uint32_t n = MIN(sizes[i], most);
            size_t len = (size_t)n * s->block_bytes;
            uint64_t lba = rng_below(&r, s->nblocks - n + 1);
            struct blk_req req;

            scatter_shape(&sc, &r, shape / 3, len, s->block_bytes);
            pattern_fill(sc.flat, lba, n, s->block_bytes, ++version);
            scatter_load(&sc);
            suite_prepare(s, t, &req, BLK_WRITE, lba, n, &sc);
            CHECK_RC(suite_do(t, s, &req), 0);
            scatter_shape(&sc, &r, shape % 3, len, s->block_bytes);
            suite_prepare(s, t, &req, BLK_READ, lba, n, &sc);
            CHECK_RC(suite_do(t, s, &req), 0);
            scatter_unload(&sc);
            CHECK(pattern_is(sc.flat, lba, n, s->block_bytes, version));
        }
    }
    return 0;
}

static int whole_device(struct rt_task *t, struct suite *s)
{
    uint32_t n = (uint32_t)MIN(s->nblocks, 16 * MIB / s->block_bytes);
    CLEANUP(free_p) uint8_t *buf = suite_buf(s, n);

    pattern_fill(buf, 0, n, s->block_bytes, 9);
    CHECK_RC(blk_write(t, s->chan, buf, 0, n, 0), 0);
    memset(buf, 0xee, (size_t)n * s->block_bytes);
    CHECK_RC(blk_read(t, s->chan, buf, 0, n), 0);
    CHECK(pattern_is(buf, 0, n, s->block_bytes, 9));
    return 0;
}

/* Zeroed and, where the device says so, unmapped blocks read as zeroes; their neighbours stay. */
static int zeroes(struct rt_task *t, struct suite *s)
{
    uint32_t n = (uint32_t)(MIB / s->block_bytes);
    CLEANUP(free_p) uint8_t *buf = suite_buf(s, n + 2);
    const unsigned flags[] = {0, BLK_F_UNMAP, BLK_F_FUA, BLK_F_UNMAP | BLK_F_FUA};

    for (unsigned i = 0; i <= ARRAY_LEN(flags); i++) {
        uint32_t len = i % 2 == 0 ? n : 3;
        bool unmap = i == ARRAY_LEN(flags);

        pattern_fill(buf, 5, n + 2, s->block_bytes, 20 + i);
        CHECK_RC(blk_write(t, s->chan, buf, 5, n + 2, 0), 0);
        if (unmap)
            CHECK_RC(blk_unmap(t, s->chan, 6, len), 0);
        else
            CHECK_RC(blk_zero(t, s->chan, 6, len, flags[i]), 0);
        CHECK_RC(blk_read(t, s->chan, buf, 5, n + 2), 0);
        CHECK(pattern_is(buf, 5, 1, s->block_bytes, 20 + i));
        if (!unmap || (s->caps & BLK_CAP_UNMAP_ZEROES))
            CHECK(bytes_are_zero(buf + s->block_bytes, (size_t)len * s->block_bytes));
        CHECK(pattern_is(buf + (size_t)(len + 1) * s->block_bytes, 6 + len, n + 1 - len,
                         s->block_bytes, 20 + i));
    }
    CHECK_RC(blk_zero(t, s->chan, 0, s->nblocks, BLK_F_UNMAP), 0);
    CHECK_RC(blk_read(t, s->chan, buf, s->nblocks - n, n), 0);
    CHECK(bytes_are_zero(buf, (size_t)n * s->block_bytes));
    return 0;
}

/* Compare finds a difference of one bit anywhere, and nothing where there is none. */
static int compares(struct rt_task *t, struct suite *s)
{
    struct rng r = suite_rng(s, "compare");
    CLEANUP(scatter_fini) struct scatter sc;
    uint32_t most = (uint32_t)(300 * KIB / s->block_bytes);

    CHECK_RC(scatter_init(&sc, (size_t)most * s->block_bytes), 0);
    for (unsigned i = 0; i < 40; i++) {
        uint32_t n = i % 4 == 0 ? most : 1 + (uint32_t)rng_below(&r, MIN(most, 4u));
        size_t len = (size_t)n * s->block_bytes;
        uint64_t lba = rng_below(&r, s->nblocks - n + 1);
        size_t wrong = rng_below(&r, len);
        struct blk_req req;

        pattern_fill(sc.flat, lba, n, s->block_bytes, 40 + i);
        CHECK_RC(blk_write(t, s->chan, sc.flat, lba, n, 0), 0);
        scatter_shape(&sc, &r, i % SCATTER_SHAPES, len, s->block_bytes);
        scatter_load(&sc);
        suite_prepare(s, t, &req, BLK_COMPARE, lba, n, &sc);
        CHECK_RC(suite_do(t, s, &req), 0);
        sc.flat[wrong] ^= (uint8_t)(1u << rng_below(&r, 8));
        scatter_load(&sc);
        suite_prepare(s, t, &req, BLK_COMPARE, lba, n, &sc);
        CHECK_RC(suite_do(t, s, &req), -EILSEQ);
    }
    return 0;
}

/* Compare-and-write writes when all is equal, and nothing at all when one bit is not. */
static int compare_and_writes(struct rt_task *t, struct suite *s)
{
    struct rng r = suite_rng(s, "caw");
    CLEANUP(scatter_fini) struct scatter sc;
    uint32_t most = (uint32_t)(200 * KIB / s->block_bytes);
    CLEANUP(free_p) uint8_t *now = suite_buf(s, most);

    CHECK_RC(scatter_init(&sc, 2 * (size_t)most * s->block_bytes), 0);
    for (unsigned i = 0; i < 24; i++) {
        uint32_t n = i % 4 == 0 ? most : 1 + (uint32_t)rng_below(&r, MIN(most, 4u));
        size_t len = (size_t)n * s->block_bytes;
        uint64_t lba = rng_below(&r, s->nblocks - n + 1);
        bool equal = i % 2 == 0;
        struct blk_req req;

        pattern_fill(now, lba, n, s->block_bytes, 200 + i);
        CHECK_RC(blk_write(t, s->chan, now, lba, n, 0), 0);
        scatter_shape(&sc, &r, i % SCATTER_SHAPES, 2 * len, s->block_bytes);
        memcpy(sc.flat, now, len);
        pattern_fill(sc.flat + len, lba, n, s->block_bytes, 300 + i);
        if (!equal)
            sc.flat[rng_below(&r, len)] ^= 1;
        scatter_load(&sc);
        suite_prepare(s, t, &req, BLK_COMPARE_AND_WRITE, lba, n, &sc);
        req.flags = i % 3 == 0 ? BLK_F_FUA : 0;
        CHECK_RC(suite_do(t, s, &req), equal ? 0 : -EILSEQ);
        CHECK_RC(blk_read(t, s->chan, now, lba, n), 0);
        CHECK(pattern_is(now, lba, n, s->block_bytes, equal ? 300 + i : 200 + i));
    }
    return 0;
}

static int flushes(struct rt_task *t, struct suite *s)
{
    CLEANUP(free_p) uint8_t *buf = suite_buf(s, 64);

    CHECK_RC(blk_flush(t, s->chan), 0);
    for (uint32_t i = 0; i < 8; i++) {
        pattern_fill(buf, i, 64, s->block_bytes, 60 + i);
        CHECK_RC(blk_write(t, s->chan, buf, i, 64, i % 2 ? BLK_F_FUA : 0), 0);
        CHECK_RC(blk_flush(t, s->chan), 0);
    }
    CHECK_RC(blk_read(t, s->chan, buf, 7, 64), 0);
    CHECK(pattern_is(buf, 7, 64, s->block_bytes, 67));
    return 0;
}

/* The counters grow by exactly what was asked for, whatever the layers below made of it. */
static int statistics(struct rt_task *t, struct suite *s)
{
    CLEANUP(free_p) struct blk_stats *before = calloc(2, sizeof(*before));
    struct blk_stats *after = before + 1;
    uint32_t n = (uint32_t)(BIG_BYTES / s->block_bytes);
    CLEANUP(free_p) uint8_t *buf = suite_buf(s, n);

    memset(buf, 0, BIG_BYTES);
    CHECK_RC(blk_stats(t, s->dev, before), 0);
    CHECK_RC(blk_write(t, s->chan, buf, 0, n, BLK_F_FUA), 0);
    CHECK_RC(blk_write(t, s->chan, buf, 0, 1, 0), 0);
    CHECK_RC(blk_read(t, s->chan, buf, 0, n), 0);
    CHECK_RC(blk_read(t, s->chan, buf, s->nblocks, 1), -ERANGE);
    CHECK_RC(blk_flush(t, s->chan), 0);
    CHECK_RC(blk_zero(t, s->chan, 0, n, 0), 0);
    CHECK_RC(blk_unmap(t, s->chan, 0, n), 0);
    CHECK_RC(blk_stats(t, s->dev, after), 0);
#define GREW(op_, field, by) CHECK(after->op[op_].field - before->op[op_].field == (by))
    GREW(BLK_WRITE, ops, 2);
    GREW(BLK_WRITE, bytes, (uint64_t)(n + 1) * s->block_bytes);
    GREW(BLK_WRITE, errors, 0);
    GREW(BLK_WRITE, latency_ns.count, 2);
    GREW(BLK_READ, ops, 2);
    GREW(BLK_READ, bytes, (uint64_t)n * s->block_bytes);
    GREW(BLK_READ, errors, 1);
    GREW(BLK_FLUSH, ops, 1);
    GREW(BLK_FLUSH, bytes, 0);
    GREW(BLK_WRITE_ZEROES, ops, 1);
    GREW(BLK_UNMAP, ops, 1);
    GREW(BLK_COMPARE, ops, 0);
#undef GREW
    return 0;
}

static int claims(struct rt_task *t, struct suite *s)
{
    struct err why = {""};

    CHECK_RC(blk_claim(s->dev, BLK_CLAIM_READ, "reader", &why), 0);
    CHECK_RC(blk_claim(s->dev, BLK_CLAIM_SHARED_WRITE, "front a", &why), 0);
    CHECK_RC(blk_claim(s->dev, BLK_CLAIM_SHARED_WRITE, "front b", &why), 0);
    CHECK_RC(blk_claim(s->dev, BLK_CLAIM_EXCLUSIVE, "store", &why), -EBUSY);
    CHECK(strstr(why.text, "reader") != NULL || strstr(why.text, "front") != NULL);
    blk_unclaim(s->dev, BLK_CLAIM_SHARED_WRITE, "front b");
    blk_unclaim(s->dev, BLK_CLAIM_SHARED_WRITE, "front a");
    blk_unclaim(s->dev, BLK_CLAIM_READ, "reader");
    CHECK_RC(blk_claim(s->dev, BLK_CLAIM_EXCLUSIVE, "store", &why), 0);
    CHECK_RC(blk_claim(s->dev, BLK_CLAIM_READ, "reader", &why), -EBUSY);
    CHECK(strstr(why.text, "store") != NULL);
    CHECK_RC(blk_claim(s->dev, BLK_CLAIM_SHARED_WRITE, "front", &why), -EBUSY);
    blk_unclaim(s->dev, BLK_CLAIM_EXCLUSIVE, "store");
    return 0;
}

const struct suite_test blk_basic_tests[] = {
    {"geometry", geometry},
    {"edges", edges},
    {"refusals", refusals},
    {"shapes of memory", shapes},
    {"whole device", whole_device},
    {"zeroes", zeroes},
    {"compare", compares},
    {"compare and write", compare_and_writes},
    {"flush", flushes},
    {"statistics", statistics},
    {"claims", claims},
    {NULL, NULL},
};
