/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every block device has to do, whatever its driver. A suite runs against one URI; the
 * device's content is overwritten. See README.md.
 */
#ifndef KVASIR_TESTS_BLK_SUITE_H
#define KVASIR_TESTS_BLK_SUITE_H

#include "check.h"

#include "blk/blk.h"


struct suite {
    const char *uri;
    uint64_t seed;
    unsigned ops;    /* how many random requests a test makes */
    bool keeps;      /* content survives close and open */
    uint64_t count;  /* requests made so far; atomic */

    /* Set for each test. */
    struct blk_dev *dev;
    struct blk_chan *chan; /* of reactor 0 */
    uint32_t block_bytes;
    uint64_t nblocks;
    uint32_t caps;
};

struct suite_test {
    const char *name;
    int (*fn)(struct rt_task *t, struct suite *s);
};

/** Runs all tests against s->uri. 0, or the first failure after saying which it was. */
int blk_suite_run(struct rt_task *t, struct suite *s);

extern const struct suite_test blk_basic_tests[];   /* NULL name ends the table */
extern const struct suite_test blk_history_tests[];
extern const struct suite_test blk_race_tests[];

struct rng {
    uint64_t state;
};
uint64_t rng_u64(struct rng *r);
/** 0 .. n-1 */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
    return rng_u64(r) % n;
}
/** The generator of a test: the same for the same seed and name. */
struct rng suite_rng(const struct suite *s, const char *name);

/**
 * What a block holds: a version, 0 for zeroes. Every 8 bytes tell block, version and place, so
 * that content that is in the wrong place, or mixed, is seen.
 */
void pattern_fill(uint8_t *buf, uint64_t lba, uint32_t nblocks, uint32_t block_bytes,
                  uint32_t version);
bool pattern_is(const uint8_t *buf, uint64_t lba, uint32_t nblocks, uint32_t block_bytes,
                uint32_t version);

/** Memory for one request, in pieces that lie apart from each other; freed by scatter_fini. */
struct scatter {
    uint8_t *memory;
    size_t memory_bytes;
    struct iovec *iov;
    unsigned iovcnt;
    unsigned iov_max;
    uint8_t *flat; /* the same amount in one run: what to write, or what was read */
    size_t len;
};
enum scatter_shape { SCATTER_ONE, SCATTER_BLOCKS, SCATTER_ODD, SCATTER_SHAPES };
int scatter_init(struct scatter *sc, size_t len_max);
void scatter_fini(struct scatter *sc);
/** Cuts memory for `len` bytes and fills it with 0xee. */
void scatter_shape(struct scatter *sc, struct rng *r, enum scatter_shape shape, size_t len,
                   uint32_t block_bytes);
/** flat -> iovecs and back. */
void scatter_load(struct scatter *sc);
void scatter_unload(struct scatter *sc);

/** Fills in a request; for a task to submit and wait for. */
void suite_prepare(struct suite *s, struct rt_task *t, struct blk_req *req, enum blk_op op,
                   uint64_t lba, uint32_t nblocks, const struct scatter *sc);
/** Submits a prepared request and waits. */
int suite_do(struct rt_task *t, struct suite *s, struct blk_req *req);

/** A buffer of n blocks, 4096-aligned. */
uint8_t *suite_buf(const struct suite *s, uint32_t nblocks);

#endif
