/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every KV device has to do, whatever its driver. A suite runs against one URI; the device is
 * emptied first. What the device says it cannot do is tested for its refusal, or for the layer's
 * written way. See README.md.
 */
#ifndef KVASIR_TESTS_KV_SUITE_H
#define KVASIR_TESTS_KV_SUITE_H

#include "check.h"

#include "kv/kv.h"

#include "base/map.h"


struct kvs {
    const char *uri;
    uint64_t seed;
    unsigned ops;      /* how many random requests a test makes */
    unsigned many;     /* how many keys "a lot of keys" are */
    uint64_t len_max;  /* of a value in these tests */
    bool keeps;        /* content survives close and open */
    bool faulty;       /* -EIO may come at any time, and then nobody knows */
    const char *only;  /* name of the one test to run; NULL: all */
    uint64_t count;    /* requests made so far; atomic */

    /* Set for each test. */
    struct kv_dev *dev;
    struct kv_chan *chan; /* of the reactor that runs the suite */
    uint32_t key_max;
    uint64_t val_max;
    uint32_t caps;
};

struct kvs_test {
    const char *name;
    int (*fn)(struct rt_task *t, struct kvs *s);
};

/** Runs all tests against s->uri. 0, or the first failure after saying which it was. */
int kvs_run(struct rt_task *t, struct kvs *s);

extern const struct kvs_test kvs_basic_tests[]; /* NULL name ends the table */
extern const struct kvs_test kvs_history_tests[];
extern const struct kvs_test kvs_list_tests[];
extern const struct kvs_test kvs_race_tests[];

struct kvs_rng {
    uint64_t state;
};
static inline uint64_t kvs_u64(struct kvs_rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
/** 0 .. n-1 */
static inline uint64_t kvs_below(struct kvs_rng *r, uint64_t n)
{
    return kvs_u64(r) % n;
}
/** The generator of a test: the same for the same seed and name. */
struct kvs_rng kvs_rng(const struct kvs *s, const char *name);

/** A length of a value: mostly near the edges where something changes. */
uint64_t kvs_len(const struct kvs *s, struct kvs_rng *r);

/**
 * What a value holds: every 8 bytes follow from its tag and their place, so that content in the
 * wrong place, or mixed of two values, is seen.
 */
void kvs_fill(uint8_t *buf, uint64_t tag, uint64_t off, size_t len);
bool kvs_is(const uint8_t *buf, uint64_t tag, uint64_t off, size_t len);

/** Memory for one request, in pieces that lie apart; and the same amount in one run. */
struct kvs_mem {
    uint8_t *memory;
    uint8_t *flat;
    size_t max;
    struct iovec iov[64];
    unsigned iovcnt;
    size_t len;
};
void kvs_mem_init(struct kvs_mem *m, size_t len_max);
void kvs_mem_fini(struct kvs_mem *m);
/** Cuts memory for `len` bytes, in one piece or in many odd ones. */
void kvs_mem_cut(struct kvs_mem *m, struct kvs_rng *r, size_t len);
void kvs_mem_load(struct kvs_mem *m);   /* flat -> pieces */
void kvs_mem_unload(struct kvs_mem *m); /* pieces -> flat */

/** Fills in a request for a task; what it does not set is rubbish on purpose. */
void kvs_prepare(struct kvs *s, struct rt_task *t, struct kv_req *req, enum kv_op op,
                 struct bytes key, const struct kvs_mem *m);
int kvs_do(struct rt_task *t, struct kv_chan *chan, struct kv_req *req);

/** Deletes every key. */
int kvs_empty(struct rt_task *t, struct kvs *s, struct kv_chan *chan);
/** Store and check of one value of tag and length, in one request. */
int kvs_put(struct rt_task *t, struct kvs *s, struct kv_chan *chan, struct bytes key, uint64_t tag,
            uint64_t len, uint32_t flags);
/** Reads the whole value: 1 it is tag/len, 0 it is not (or not there: tag 0 says that is right). */
int kvs_get_is(struct rt_task *t, struct kvs *s, struct kv_chan *chan, struct bytes key,
               uint64_t tag, uint64_t len);
/** A stream of the whole value written in `piece` bytes at a time; ends by commit or abort. */
int kvs_put_stream(struct rt_task *t, struct kvs *s, struct kv_chan *chan, struct bytes key,
                   uint64_t tag, uint64_t len, size_t piece, uint32_t flags, bool unknown);

/** A worker of a race: fn runs in `per_reactor` tasks on each reactor. */
struct kvs_racer {
    struct kvs *s;
    struct rt_reactor *reactor;
    unsigned idx;
    unsigned *running; /* atomic: racers still under way */
    void *shared;
    struct kvs_rng rng;
    int (*fn)(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan);
};
int kvs_race(struct rt_task *t, struct kvs *s, unsigned per_reactor, void *shared,
             int (*fn)(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan));

static inline struct bytes kvs_str(const char *text)
{
    return bytes_of_str(text);
}
static inline bool kvs_has(const struct kvs *s, uint32_t cap)
{
    return (s->caps & cap) != 0;
}

#endif
