/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bkv_check(): finds nothing in a store that was used, closed, or copied in the middle as a crash
 * would leave it; and after a bit of what the store has written was flipped, either it (or the
 * opening) finds that, or every value is still right: all bytes of a small store, the blobstore
 * below included; of its long value one of seven, with KVASIR_LONG=1 all. In the log as a crash
 * leaves it (one byte of three) the same, but for the last block: that may look like one that
 * nobody was told of.
 */
#include "kv/drivers/blobkv/check.h"
#include "kv/drivers/blobkv/shards.h"
#include "kv/drivers/blobkv/test_rng.h"

#include "blob/check.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define DEV_BYTES (48 * MIB)
#define KEYS 400u
#define VALUE_MAX 700000u
#define DEV(name) "mem:?size=48M&block_size=4096&name=" name
#define URI(name, more)                                                                            \
    "blob:?bdev=mem:%3Fsize=48M%26block_size=4096%26name=" name "&memory=4M&table=1M" more

/* The line that failed goes back to the main stack. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)

struct want {
    uint32_t len; /* + 1; 0: not there */
    uint32_t seed;
};

struct bed {
    struct want want[KEYS];
    struct rng rng;
    uint8_t *value, *got, *image, *sector;
    unsigned keys;  /* that are compared */
    unsigned found; /* findings of the last check that are no notes */
    unsigned flips, refused, seen, harmless, doubted;
};

static void fill(uint8_t *p, uint32_t len, uint32_t seed)
{
    struct rng r = {.state = seed + 1};

    for (uint32_t i = 0; i < len; i += 8) {
        uint64_t v = rng_u64(&r);

        memcpy(p + i, &v, MIN(8u, len - i));
    }
}

static struct bytes key_of(unsigned i, char *buf)
{
    return bytes_make(buf, (size_t)snprintf(buf, 32, "key/%u", i * 7919 % 1000));
}

/* --- devices ---------------------------------------------------------------------------------- */

static int open_kv(struct rt_task *t, const char *uri, struct kv_dev **dev, struct kv_chan **chan,
                   struct err *why)
{
    int rc = kv_open(t, uri, dev, why);

    if (rc < 0)
        return rc;
    rc = kv_chan_get(t, *dev, chan);
    if (rc < 0)
        kv_close(t, *dev);
    return rc;
}

static void close_kv(struct rt_task *t, struct kv_dev *dev, struct kv_chan *chan)
{
    kv_chan_put(t, chan);
    kv_close(t, dev);
}

/* The whole device into memory, or back. */
static int copy(struct rt_task *t, const char *uri, uint8_t *image, bool write)
{
    struct err why = {""};
    struct blk_chan *chan;
    struct blk_dev *dev;
    int rc;

    rc = blk_open(t, uri, &dev, &why);
    if (rc < 0)
        return rc;
    rc = blk_chan_get(t, dev, &chan);
    if (rc == 0)
        rc = write ? blk_write(t, chan, image, 0, DEV_BYTES / 4096, 0)
                   : blk_read(t, chan, image, 0, DEV_BYTES / 4096);
    if (rc == 0)
        blk_chan_put(t, chan);
    blk_close(t, dev);
    return rc;
}

/* --- work ------------------------------------------------------------------------------------- */

static int put(struct rt_task *t, struct bed *b, struct kv_chan *chan, unsigned i, uint32_t len)
{
    char buf[32];
    uint32_t seed = (uint32_t)rng_u64(&b->rng);
    int rc;

    fill(b->value, len, seed);
    rc = kv_store(t, chan, key_of(i, buf), bytes_make(b->value, len), 0);
    if (rc == 0)
        b->want[i] = (struct want){len + 1, seed};
    return rc;
}

static int work(struct rt_task *t, struct bed *b, struct kv_chan *chan, unsigned ops)
{
    for (unsigned n = 0; n < ops; n++) {
        unsigned i = rng_below(&b->rng, KEYS), what = rng_below(&b->rng, 50);
        char buf[32];
        int rc;

        if (what < 5)
            rc = kv_delete(t, chan, key_of(i, buf));
        else
            rc = put(t, b, chan, i,
                     what == 5   ? rng_below(&b->rng, VALUE_MAX)
                     : what < 15 ? rng_below(&b->rng, 20000)
                                 : rng_below(&b->rng, 300));
        if (what < 5 && rc == 0)
            b->want[i].len = 0;
        if (rc < 0 && rc != -ENOENT)
            return rc;
    }
    return 0;
}

/* Every key is as it has to be: 1; 0 one is not. */
static int compare(struct rt_task *t, struct bed *b, struct kv_chan *chan)
{
    for (unsigned i = 0; i < b->keys; i++) {
        const struct want *w = &b->want[i];
        uint64_t len = 0;
        char buf[32];
        int rc = kv_retrieve(t, chan, key_of(i, buf), b->got, VALUE_MAX, &len);

        if (rc < 0 && rc != -ENOENT && rc != -EBADMSG)
            return rc;
        if ((rc == 0) != (w->len > 0))
            return 0;
        if (rc < 0)
            continue;
        fill(b->value, w->len - 1, w->seed);
        if (len != w->len - 1 || memcmp(b->value, b->got, len) != 0)
            return 0;
    }
    return 1;
}

static void found(void *arg, const struct kv_finding *f)
{
    struct bed *b = arg;

    b->found += f->severity != KV_NOTE;
}

static void found_loud(void *arg, const struct kv_finding *f)
{
    found(arg, f);
    if (f->severity != KV_NOTE)
        fprintf(stderr, "%s at %lu: %s\n", f->structure, f->offset, f->text);
}

/* Opens a store for reading and checks it: 0; what open says; *right: the values are. */
static int look(struct rt_task *t, struct bed *b, const char *uri, bool loud, bool *right)
{
    struct kv_check_opts opts = {.found = loud ? found_loud : found, .arg = b};
    struct kv_check_report rep;
    struct err why = {""};
    struct kv_chan *chan;
    struct kv_dev *dev;
    int rc;

    b->found = 0;
    rc = open_kv(t, uri, &dev, &chan, &why);
    if (rc < 0) {
        if (loud)
            fprintf(stderr, "%s\n", why.text);
        return rc;
    }
    rc = kv_check(t, dev, &opts, &rep);
    if (rc == 0 && (loud || b->found == 0)) {
        rc = compare(t, b, chan);
        *right = rc == 1;
        rc = MIN(rc, 0);
    }
    close_kv(t, dev, chan);
    return rc;
}

/* --- flips ------------------------------------------------------------------------------------ */

/* A store as small as there are: blobs and engine take some hundred sectors. */
#define ROT_BYTES (8 * MIB)
#define LONG_BYTES 33000u /* the shortest value in a chunk, or nearly */
#define ROT_DEV "mem:?size=8M&block_size=512&name=rot"
#define ROT_URI(more)                                                                              \
    "blob:?bdev=mem:%3Fsize=8M%26block_size=512%26name=rot&memory=4M&table=64K&segment=256K" more

/* Under ASan, where it takes eight times as long, not all of them. */
#ifdef __SANITIZE_ADDRESS__
#define SLOW 11
#else
#define SLOW 1
#endif

/* The bytes that a check finds nothing wrong with are looked at once more, with a store that is
 * opened anew: then either that says so, or all values are right. */
struct rot {
    struct bed *b;
    struct blk_chan *blk;
    struct kv_dev *kv; /* open for reading */
    /* Of the long value, which is all the same to a checksum, every so many bytes. */
    uint64_t long_from, long_to;
    unsigned long_step, step; /* the same of everything else */
    struct blk_dev *dev, *told;
    uint64_t *left; /* byte * 256 + mask */
    size_t nleft;
};

static int poke(struct rt_task *t, const struct rot *r, uint64_t off, uint8_t mask)
{
    uint64_t lba = off / 512;

    memcpy(r->b->sector, r->b->image + lba * 512, 512);
    r->b->sector[off % 512] ^= mask;
    return blk_write(t, r->blk, r->b->sector, lba, 1, 0);
}

static int flip_checked(struct rt_task *t, struct rot *r, uint64_t off)
{
    uint8_t mask = (uint8_t)(1u << rng_below(&r->b->rng, 8));
    struct kv_check_opts opts = {.found = found, .arg = r->b};
    struct kv_check_report rep;
    int rc = poke(t, r, off, mask);

    r->b->found = 0;
    if (rc == 0)
        rc = kv_check(t, r->kv, &opts, &rep);
    if (rc == 0)
        rc = poke(t, r, off, 0);
    r->b->flips++;
    if (r->b->found > 0)
        r->b->seen++;
    else
        r->left[r->nleft++] = off << 8 | mask;
    return rc;
}

static int flip_reopened(struct rt_task *t, struct rot *r, uint64_t place)
{
    struct bed *b = r->b;
    bool right = false;
    int rc = poke(t, r, place >> 8, (uint8_t)place);

    if (rc < 0)
        return rc;
    rc = look(t, b, ROT_URI("&readonly=yes"), false, &right);
    if (rc < 0)
        b->refused++;
    else if (b->found > 0)
        b->seen++;
    else if (right)
        b->harmless++;
    else
        fprintf(stderr, "bit %02x of byte %lu: nothing found, and a value is wrong\n",
                (unsigned)(place & 255), place >> 8);
    return poke(t, r, place >> 8, 0);
}

/* Of each sector that has something: what was never written is nobody's. */
static int flip_all(struct rt_task *t, struct rot *r)
{
    int rc = 0;

    for (uint64_t off = 0; off < ROT_BYTES && rc == 0; off += 512) {
        if (bytes_are_zero(r->b->image + off, 512))
            continue;
        for (uint64_t i = off; i < off + 512 && rc == 0; i++) {
            if (i % (i >= r->long_from && i < r->long_to ? r->long_step : r->step) == 0)
                rc = flip_checked(t, r, i);
        }
    }
    return rc;
}

/* --- tests ------------------------------------------------------------------------------------ */

static int used(struct rt_task *t, struct bed *b, struct blk_dev **dev)
{
    struct err why = {""};
    struct kv_chan *chan;
    struct kv_dev *kv;
    bool right = false;

    CHECK(blk_open(t, DEV("chk-a"), &dev[0], &why) == 0);
    CHECK(blk_open(t, DEV("chk-b"), &dev[1], &why) == 0);
    CHECK(open_kv(t, URI("chk-a", "&checkpoint=1M"), &kv, &chan, &why) == 0);
    for (unsigned round = 0; round < 3; round++) {
        CHECK(work(t, b, chan, 250) == 0);
        /* As a crash would leave it: all that was acknowledged is in it. */
        CHECK(copy(t, DEV("chk-a"), b->image, false) == 0);
        CHECK(copy(t, DEV("chk-b"), b->image, true) == 0);
        CHECK(look(t, b, URI("chk-b", "&readonly=yes"), true, &right) == 0);
        CHECK(b->found == 0);
        CHECK(right);
    }
    close_kv(t, kv, chan);
    CHECK(look(t, b, URI("chk-a", "&readonly=yes"), true, &right) == 0);
    CHECK(b->found == 0);
    CHECK(right);
    return 0;
}

static int used_task(struct rt_task *t, void *arg)
{
    struct blk_dev *dev[2] = {NULL, NULL};
    int rc = used(t, arg, dev);

    for (unsigned i = 0; i < 2; i++) {
        if (dev[i] != NULL)
            blk_close(t, dev[i]);
    }
    return rc;
}

static int flips_open(struct rt_task *t, struct rot *r)
{
    struct err why = {""};
    int rc = kv_open(t, ROT_URI("&readonly=yes"), &r->kv, &why);

    if (rc < 0)
        return rc;
    rc = flip_all(t, r);
    kv_close(t, r->kv);
    return rc;
}

static int flips(struct rt_task *t, struct rot *r, struct blk_dev **dev)
{
    const struct lvs_format_opts large = {.blob.cluster_bytes =
                                              256 * KIB}; /* so few metadata pages */
    struct bed *b = r->b;
    const uint8_t *found_at;
    struct lvs lvs;
    struct err why = {""};
    struct kv_chan *chan;
    struct kv_dev *kv;

    CHECK(blk_open(t, ROT_DEV, dev, &why) == 0);
    CHECK(lvs_open(t, ROT_DEV, LVS_OPEN_FORMAT, &large, &lvs, &why) == 0);
    lvs_close(t, &lvs);
    CHECK(open_kv(t, ROT_URI(""), &kv, &chan, &why) == 0);
    for (unsigned i = 0; i < 12; i++)
        CHECK(put(t, b, chan, i, rng_below(&b->rng, 100)) == 0);
    CHECK(put(t, b, chan, 12, 1000) == 0);
    CHECK(put(t, b, chan, 13, LONG_BYTES) == 0);
    close_kv(t, kv, chan);
    b->keys = 15;
    CHECK(blk_chan_get(t, *dev, &r->blk) == 0);
    CHECK(blk_read(t, r->blk, b->image, 0, ROT_BYTES / 512) == 0);
    fill(b->value, LONG_BYTES, b->want[13].seed);
    found_at = memmem(b->image, ROT_BYTES, b->value, 512);
    CHECK(found_at != NULL);
    r->long_from = (uint64_t)(found_at - b->image);
    r->long_to = r->long_from + LONG_BYTES;
    CHECK(flips_open(t, r) == 0);
    for (size_t i = 0; i < r->nleft; i++)
        CHECK(flip_reopened(t, r, r->left[i]) == 0);
    blk_chan_put(t, r->blk);
    fprintf(stderr, "%u flips: %u refused at open, %u found, %u harmless\n", b->flips, b->refused,
            b->seen, b->harmless);
    CHECK(b->seen > 10000 / SLOW);
    CHECK(b->flips == b->refused + b->seen + b->harmless);
    return 0;
}

static int flips_task(struct rt_task *t, void *arg)
{
    CLEANUP(free_p) uint64_t *left = malloc(ROT_BYTES * sizeof(*left));
    struct rot r = {.b = arg, .left = left, .long_step = 7 * SLOW, .step = SLOW};
    struct blk_dev *dev = NULL;
    int rc = left != NULL ? 0 : -ENOMEM;

    if (getenv("KVASIR_LONG") != NULL)
        r.long_step = r.step = 1;
    if (rc == 0)
        rc = flips(t, &r, &dev);

    if (dev != NULL)
        blk_close(t, dev);
    return rc;
}

/* --- the log after a crash -------------------------------------------------------------------- */

#define TOLD_DEV "mem:?size=8M&block_size=512&name=told"
#define TOLD_URI                                                                                   \
    "blob:?bdev=mem:%3Fsize=8M%26block_size=512%26name=told&memory=4M&table=64K&segment=256K"      \
    "&readonly=yes"
#define PUTS 20u

/* One byte of the log. Only the last put may be missing, and nobody be told. */
static int flip_log(struct rt_task *t, struct rot *r, uint64_t off, const struct want *before)
{
    struct bed *b = r->b;
    struct want *last = &b->want[PUTS - 1], now = *last;
    bool right = false;
    int rc = poke(t, r, off, (uint8_t)(1u << rng_below(&b->rng, 8)));

    if (rc < 0)
        return rc;
    b->flips++;
    rc = look(t, b, TOLD_URI, false, &right);
    if (rc < 0) {
        b->refused++;
    } else if (b->found > 0) {
        b->seen++;
    } else if (right) {
        b->harmless++;
    } else {
        *last = *before;
        rc = look(t, b, TOLD_URI, false, &right);
        *last = now;
        b->doubted += rc == 0 && right;
    }
    return poke(t, r, off, 0);
}

/* Puts one after the other, each a block, and what they have written in the store as it is then. */
static int put_logged(struct rt_task *t, struct rot *r, uint8_t *before, struct want *before_last)
{
    struct bed *b = r->b;
    struct err why = {""};
    struct kv_chan *chan;
    struct blk_chan *blk;
    struct kv_dev *kv;

    CHECK(open_kv(t, ROT_URI(""), &kv, &chan, &why) == 0);
    CHECK(put(t, b, chan, PUTS - 1, 50) == 0);
    *before_last = b->want[PUTS - 1];
    CHECK(blk_chan_get(t, r->dev, &blk) == 0);
    CHECK(blk_read(t, blk, before, 0, ROT_BYTES / 512) == 0);
    for (unsigned i = 0; i < PUTS; i++)
        CHECK(put(t, b, chan, i, 20 + rng_below(&b->rng, 300)) == 0);
    CHECK(blk_read(t, blk, b->image, 0, ROT_BYTES / 512) == 0);
    blk_chan_put(t, blk);
    close_kv(t, kv, chan);
    b->keys = PUTS;
    return 0;
}

static int log_flips(struct rt_task *t, struct rot *r, uint8_t *before)
{
    struct bed *b = r->b;
    struct want before_last;

    CHECK(put_logged(t, r, before, &before_last) == 0);
    CHECK(blk_chan_get(t, r->told, &r->blk) == 0);
    CHECK(blk_write(t, r->blk, b->image, 0, ROT_BYTES / 512, 0) == 0);
    for (uint64_t off = 0; off < ROT_BYTES; off++) {
        if (off % 512 == 0 && memcmp(before + off, b->image + off, 512) == 0)
            off += 511;
        else if (off % r->step == 0)
            CHECK(flip_log(t, r, off, &before_last) == 0);
    }
    blk_chan_put(t, r->blk);
    fprintf(stderr, "%u flips: %u refused at open, %u found, %u harmless, %u of the last put\n",
            b->flips, b->refused, b->seen, b->harmless, b->doubted);
    CHECK(b->flips >= PUTS * 512 / r->step);
    CHECK(b->refused > 0 && b->doubted > 0 && b->doubted <= 512);
    CHECK(b->flips == b->refused + b->seen + b->harmless + b->doubted);
    return 0;
}

static int log_flips_task(struct rt_task *t, void *arg)
{
    CLEANUP(free_p) uint8_t *before = aligned_alloc(4096, ROT_BYTES);
    struct rot r = {.b = arg, .step = 3 * SLOW};
    struct err why = {""};
    int rc = before != NULL ? 0 : -ENOMEM;

    if (getenv("KVASIR_LONG") != NULL)
        r.step = 1;
    if (rc == 0)
        rc = blk_open(t, ROT_DEV, &r.dev, &why);
    if (rc == 0)
        rc = blk_open(t, TOLD_DEV, &r.told, &why);
    if (rc == 0)
        rc = log_flips(t, &r, before);
    if (r.told != NULL)
        blk_close(t, r.told);
    if (r.dev != NULL)
        blk_close(t, r.dev);
    return rc;
}

/* --- while it is served ----------------------------------------------------------------------- */

struct writer {
    struct rt_req done;
    struct bed *b;
    struct kv_chan *chan;
    bool stop;
};

static int writer_task(struct rt_task *t, void *arg)
{
    struct writer *w = arg;
    int rc = 0;

    while (!w->stop && rc == 0) {
        rc = work(t, w->b, w->chan, 20);
        (void)rt_yield(t);
    }
    return rc;
}

/* Turns one bit of the record of a key that nobody changes. */
static int plant(struct rt_task *t, struct bkv *s, struct bytes key, uint8_t *sector)
{
    struct bkv_place place;
    uint64_t at;

    CHECK(bkv_find(t, s, key, &place) == 0);
    at = (place.addr + 100) & ~(uint64_t)4095;
    CHECK(blob_read(t, s->chan, s->blob, sector, at, 4096) == 0);
    sector[(place.addr + 100) % 4096] ^= 4;
    CHECK(blob_write(t, s->chan, s->blob, sector, at, 4096, 0) == 0);
    return 0;
}

static int live(struct rt_task *t, struct bed *b, struct kv_dev *kv, struct kv_chan *chan)
{
    struct kv_check_opts opts = {.found = found_loud, .arg = b};
    struct bkv *s = ((struct bkv_shards *)kv_driver_dev(kv))->shard[0];
    struct writer w = {.b = b, .chan = chan};
    struct kv_check_report rep;
    uint64_t before, checkpoints;
    int rc = 0;

    fill(b->got, 5000, 1);
    CHECK(kv_store(t, chan, bytes_of_str("still"), bytes_make(b->got, 5000), 0) == 0);
    rt_req_init_task(&w.done, t);
    CHECK(rt_task_start("writer", writer_task, &w, &w.done, NULL) == 0);
    for (unsigned i = 0; i < 25 && rc == 0; i++) {
        before = s->stats.ops;
        checkpoints = s->stats.checkpoints;
        rc = kv_check(t, kv, &opts, &rep);
        b->flips += s->stats.ops > before;                 /* others were served */
        b->seen += s->stats.checkpoints > checkpoints + 1; /* and checkpoints made */
        if (rc == 0 && rep.keys == 0)
            rc = -ENODATA;
    }
    if (rc == 0 && b->found == 0) {
        opts.found = found;
        rc = plant(t, s, bytes_of_str("still"), b->sector);
        if (rc == 0)
            rc = kv_check(t, kv, &opts, &rep);
        b->refused = (unsigned)rep.errors;
    } else if (rc == 0) {
        rc = -EBADMSG;
    }
    w.stop = true;
    CHECK(rt_wait(t, &w.done) == 0);
    return rc;
}

static int live_task(struct rt_task *t, void *arg)
{
    struct bed *b = arg;
    struct err why = {""};
    struct kv_chan *chan;
    struct kv_dev *kv;
    struct blk_dev *dev;
    int rc;

    CHECK(blk_open(t, DEV("chk-l"), &dev, &why) == 0);
    CHECK(open_kv(t, URI("chk-l", "&checkpoint=1M&segment=256K&extents=3"), &kv, &chan, &why) == 0);
    rc = live(t, b, kv, chan);
    close_kv(t, kv, chan);
    blk_close(t, dev);
    if (rc < 0)
        return rc;
    fprintf(stderr, "%u checks under load, %u over checkpoints; %u errors after a flip\n", b->flips,
            b->seen, b->refused);
    CHECK(b->flips == 25);
    CHECK(b->seen > 0);
    CHECK(b->refused > 0);
    return 0;
}

static void run(rt_task_fn fn)
{
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = 4 * MIB};
    struct bed *b = calloc(1, sizeof(*b));
    struct err why = {""};

    assert_non_null(b);
    b->rng.state = 1;
    b->keys = KEYS;
    b->value = malloc(VALUE_MAX + 8);
    b->got = malloc(VALUE_MAX);
    b->image = aligned_alloc(4096, DEV_BYTES);
    b->sector = aligned_alloc(4096, 4096);
    assert_int_equal(rt_run(&cfg, fn, b, &why), 0);
    free(b->value);
    free(b->got);
    free(b->image);
    free(b->sector);
    free(b);
}

static void used_test(void **state)
{
    (void)state;
    run(used_task);
}

static void flips_test(void **state)
{
    (void)state;
    run(flips_task);
}

static void log_flips_test(void **state)
{
    (void)state;
    run(log_flips_task);
}

static void live_test(void **state)
{
    (void)state;
    run(live_task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(used_test),
        cmocka_unit_test(flips_test),
        cmocka_unit_test(log_flips_test),
        cmocka_unit_test(live_test),
    };

    /* Stores are opened thousands of times: what they take and give back stays in the process. */
    mallopt(M_MMAP_THRESHOLD, 32 * MIB);
    mallopt(M_TRIM_THRESHOLD, 512 * MIB);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
