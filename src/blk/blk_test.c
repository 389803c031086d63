/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layer: sharing, claims, watches, statistics, cancelling, removal, locks between reactors.
 * What every driver has to do under it is in tests/conformance.
 */
#include "blk/blk_test.h"

#include <string.h>

#define BLOCK 4096u

static uint8_t buf_a[16 * BLOCK], buf_b[16 * BLOCK];

/* --- opening ---------------------------------------------------------------------------------- */

static int open_shares(struct rt_task *t, void *arg)
{
    struct blk_dev *a, *b, *c;
    struct err why = {""};

    CHECK(blk_open(t, "mem:?size=1M&name=x", &a, &why) == 0);
    CHECK(blk_open(t, "mem:?name=x", &b, &why) == 0);
    CHECK(a == b);
    CHECK(blk_open(t, "mem:?name=x&size=2M", &c, &why) == -EINVAL);
    CHECK(blk_open(t, "slice:?length=64K&base=mem:%3Fname=x", &c, &why) == 0);
    CHECK(blk_open(t, "slice:?length=64K&base=mem:%3Fname=x", &b, &why) == 0);
    CHECK(b == c);
    blk_close(t, a);
    blk_close(t, a);
    blk_close(t, b);
    blk_close(t, b);
    CHECK(blk_open(t, "mem:?name=x&size=2M", &c, &why) == 0);
    CHECK(blk_info(c)->nblocks == 512);
    blk_close(t, c);

    CHECK(blk_open(t, "mem:?size=1M", &a, &why) == 0);
    CHECK(blk_open(t, "mem:?size=1M", &b, &why) == 0);
    CHECK(a != b);
    CHECK(memcmp(blk_info(a)->uuid, blk_info(b)->uuid, 16) != 0);
    blk_close(t, a);
    blk_close(t, b);
    return 0;
}
TEST(open_shares, 1)

static int open_refuses(struct rt_task *t, void *arg)
{
    static const struct {
        const char *uri;
        int rc;
        const char *text;
    } bad[] = {
        {"tape:/dev/st0", -EINVAL, "mem:"},
        {"mem:?size=100", -EINVAL, "multiple"},
        {"mem:?block_size=100", -EINVAL, "power of two"},
        {"mem:/x", -EINVAL, "no path"},
        {"mem:?colour=red", -EINVAL, "size"},
        {"mem:#x", -EINVAL, "fragment"},
        {"slice:", -EINVAL, "base"},
        {"slice:?base=mem:%3Fsize=1M&offset=100", -EINVAL, "multiples"},
        {"slice:?base=mem:%3Fsize=1M&offset=1M", -ERANGE, "end"},
        {"slice:?base=mem:%3Fsize=1M&length=2M", -ERANGE, "end"},
        {"slice:?base=mem:%3Fsize=1M&length=0", -EINVAL, "length"},
        {"fault:?base=mem:&align=3", -EINVAL, "align"},
        {"fault:?base=slice:", -EINVAL, "base"},
    };
    struct blk_dev *dev;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err why = {""};
        int rc = blk_open(t, bad[i].uri, &dev, &why);

        if (rc != bad[i].rc || strstr(why.text, bad[i].text) == NULL) {
            fprintf(stderr, "%s: %d %s\n", bad[i].uri, rc, why.text);
            return -__LINE__;
        }
    }
    return 0;
}
TEST(open_refuses, 1)

/* --- reading and writing ---------------------------------------------------------------------- */

static int move_and_count(struct rt_task *t, void *arg)
{
    CLEANUP(free_p) struct blk_stats *stats = calloc(1, sizeof(*stats));
    struct blk_dev *dev;
    struct blk_chan *chan;

    CHECK(dev_open(t, "mem:?size=1M", &dev, &chan) == 0);
    memset(buf_a, 0x5a, sizeof(buf_a));
    CHECK(blk_write(t, chan, buf_a, 3, 2, BLK_F_FUA) == 0);
    CHECK(blk_read(t, chan, buf_b, 2, 4) == 0);
    CHECK(bytes_are_zero(buf_b, BLOCK));
    CHECK(memcmp(buf_b + BLOCK, buf_a, 2 * BLOCK) == 0);
    CHECK(bytes_are_zero(buf_b + 3 * BLOCK, BLOCK));
    CHECK(blk_flush(t, chan) == 0);
    CHECK(blk_zero(t, chan, 3, 1, 0) == 0);
    CHECK(blk_unmap(t, chan, 4, 1) == 0);
    CHECK(blk_read(t, chan, buf_b, 2, 4) == 0);
    CHECK(bytes_are_zero(buf_b, 4 * BLOCK));
    CHECK(blk_read(t, chan, buf_b, 255, 2) == -ERANGE);
    CHECK(blk_read(t, chan, buf_b, UINT64_MAX, 2) == -ERANGE);
    CHECK(blk_read(t, chan, buf_b, 0, 0) == -EINVAL);

    CHECK(blk_stats(t, dev, stats) == 0);
    CHECK(stats->op[BLK_READ].ops == 5);
    CHECK(stats->op[BLK_READ].errors == 3);
    CHECK(stats->op[BLK_READ].bytes == 8 * BLOCK);
    CHECK(stats->op[BLK_READ].latency_ns.count == 5);
    CHECK(stats->op[BLK_WRITE].ops == 1);
    CHECK(stats->op[BLK_FLUSH].ops == 1);
    CHECK(stats->op[BLK_WRITE_ZEROES].bytes == BLOCK);
    CHECK(stats->op[BLK_UNMAP].ops == 1);
    dev_close(t, dev, chan);
    return 0;
}
TEST(move_and_count, 1)

/* --- what the layer makes of a request -------------------------------------------------------- */

#define POOR "fault:?hide=yes&base=mem:%3Fname=base%26size=1M"

static int ops_of(struct rt_task *t, struct blk_dev *dev, enum blk_op op, uint64_t *out_ops)
{
    CLEANUP(free_p) struct blk_stats *stats = calloc(1, sizeof(*stats));

    CHECK(blk_stats(t, dev, stats) == 0);
    *out_ops = stats->op[op].ops;
    return 0;
}

/* A FUA write on a device without it is a write and a flush; one that fails is not flushed. */
static int emulates_fua(struct rt_task *t, void *arg)
{
    struct blk_dev *base, *dev;
    struct blk_chan *bchan, *chan;
    uint64_t flushes, writes;

    CHECK(dev_open(t, "mem:?name=base&size=1M", &base, &bchan) == 0);
    CHECK(dev_open(t, POOR, &dev, &chan) == 0);
    CHECK(blk_write(t, chan, buf_a, 0, 1, 0) == 0);
    CHECK(ops_of(t, base, BLK_FLUSH, &flushes) == 0 && flushes == 0);
    CHECK(blk_write(t, chan, buf_a, 0, 1, BLK_F_FUA) == 0);
    CHECK(ops_of(t, base, BLK_FLUSH, &flushes) == 0 && flushes == 1);
    CHECK(blk_zero(t, chan, 0, 64, BLK_F_FUA) == 0);
    CHECK(ops_of(t, base, BLK_FLUSH, &flushes) == 0 && flushes == 2);
    CHECK(ops_of(t, base, BLK_WRITE_ZEROES, &writes) == 0 && writes == 0);
    CHECK(ops_of(t, dev, BLK_WRITE, &writes) == 0 && writes == 2);
    dev_close(t, dev, chan);
    CHECK(dev_open(t, POOR "&write_error=1", &dev, &chan) == 0);
    CHECK(blk_write(t, chan, buf_a, 0, 1, BLK_F_FUA) == -EIO);
    CHECK(ops_of(t, base, BLK_FLUSH, &flushes) == 0 && flushes == 2);
    dev_close(t, dev, chan);
    dev_close(t, base, bchan);
    return 0;
}
TEST(emulates_fua, 1)

/* Each emulation hands the failure of any of its steps on. */
static int hands_failures_on(struct rt_task *t, void *arg)
{
    struct blk_req req;
    struct iovec iov = {.iov_base = buf_a, .iov_len = 16 * BLOCK};
    bool failed = true;

    /* The n-th step fails, for each n until there is none. */
    for (unsigned n = 1; failed; n++) {
        char uri[128];
        struct blk_dev *dev;
        struct blk_chan *chan;

        CHECK(n < 20);
        failed = false;
        snprintf(uri, sizeof(uri), "fault:?hide=yes&max_io=8K&fail_at=%u&base=mem:%%3Fsize=1M", n);
        memset(buf_a, 0, sizeof(buf_a));
        for (unsigned op = BLK_READ; op < BLK_OPS; op++) {
            int rc;

            CHECK(dev_open(t, uri, &dev, &chan) == 0);
            memset(&req, 0, sizeof(req));
            rt_req_init_task(&req.req, t);
            req.op = (uint8_t)op;
            req.flags = BLK_F_FUA;
            req.nblocks = op == BLK_COMPARE_AND_WRITE ? 8 : 16;
            req.iov = &iov;
            req.iovcnt = 1;
            blk_submit(chan, &req);
            rc = rt_wait(t, &req.req);
            CHECK(rc == 0 || rc == -EIO);
            failed |= rc < 0;
            CHECK(n > 1 || rc == -EIO);
            dev_close(t, dev, chan);
        }
    }
    return 0;
}
TEST(hands_failures_on, 1)

#define MANY 700 /* more than a filter has children, and far more than a channel has workers */

static int many_at_once(struct rt_task *t, void *arg)
{
    CLEANUP(free_p) struct blk_req *req = calloc(MANY, sizeof(*req));
    struct iovec iov = {.iov_base = buf_a, .iov_len = BLOCK};
    struct blk_dev *dev;
    struct blk_chan *chan;
    unsigned ncancelled = 0;

    for (unsigned fua = 0; fua < 2; fua++) {
        CHECK(dev_open(t, POOR "&delay=1ms", &dev, &chan) == 0);
        for (unsigned i = 0; i < MANY; i++) {
            rt_req_init_task(&req[i].req, t);
            req[i].op = BLK_WRITE;
            req[i].flags = fua ? BLK_F_FUA : 0;
            req[i].lba = i % 256;
            req[i].nblocks = 1;
            req[i].iov = &iov;
            req[i].iovcnt = 1;
            blk_submit(chan, &req[i]);
        }
        for (unsigned i = 0; i < MANY; i += 3)
            rt_req_cancel(&req[i].req);
        for (unsigned i = 0; i < MANY; i++) {
            int rc = rt_wait(t, &req[i].req);

            CHECK(rc == 0 || (rc == -ECANCELED && i % 3 == 0));
            ncancelled += rc < 0;
        }
        dev_close(t, dev, chan);
    }
    CHECK(ncancelled > 100);
    return 0;
}
TEST(many_at_once, 1)

/* --- several reactors ------------------------------------------------------------------------- */

struct opener {
    struct rt_reactor *reactor;
    struct blk_dev *dev;
};

static int open_there(struct rt_task *t, void *arg)
{
    struct opener *o = arg;
    struct err why;
    struct blk_chan *chan;

    /* Round and round, so that openings meet openings and closings. */
    for (unsigned i = 0; i < 200; i++) {
        CHECK(blk_open(t, "slice:?length=64K&base=mem:%3Fname=shared%26size=1M", &o->dev, &why) ==
              0);
        CHECK(blk_chan_get(t, o->dev, &chan) == 0);
        CHECK(blk_write(t, chan, buf_a, 0, 1, 0) == 0);
        blk_chan_put(t, chan);
        blk_close(t, o->dev);
    }
    return 0;
}

static int opener_task(struct rt_task *t, void *arg)
{
    struct opener *o = arg;

    return rt_on(t, o->reactor, open_there, o);
}

static int opens_everywhere(struct rt_task *t, void *arg)
{
    struct opener o[6];
    struct rt_req done[6];

    for (unsigned i = 0; i < 6; i++) {
        o[i].reactor = rt_reactor(i % 3);
        rt_req_init_task(&done[i], t);
        CHECK(rt_task_start("opener", opener_task, &o[i], &done[i], NULL) == 0);
    }
    for (unsigned i = 0; i < 6; i++)
        CHECK(rt_wait(t, &done[i]) == 0);
    return 0;
}
TEST(opens_everywhere, 3)

static int uuids(struct rt_task *t, void *arg)
{
    uint8_t a[16], b[16];

    blk_uuid_of("file:/a", a);
    blk_uuid_of("file:/b", b);
    CHECK(memcmp(a, b, 16) != 0);
    CHECK((a[6] & 0xf0) == 0x80 && (a[8] & 0xc0) == 0x80);
    blk_uuid_of("file:/a", b);
    CHECK(memcmp(a, b, 16) == 0);
    return 0;
}
TEST(uuids, 1)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_shares_test),       cmocka_unit_test(open_refuses_test),
        cmocka_unit_test(move_and_count_test),    cmocka_unit_test(emulates_fua_test),
        cmocka_unit_test(hands_failures_on_test), cmocka_unit_test(many_at_once_test),
        cmocka_unit_test(opens_everywhere_test),  cmocka_unit_test(uuids_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
