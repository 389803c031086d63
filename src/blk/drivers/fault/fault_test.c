/* SPDX-License-Identifier: Apache-2.0 */
/* Each fault happens as told, and the same seed gives the same faults. */
#include "blk/blk_test.h"

#include <string.h>

#define BLOCK 4096u
#define BASE "fault:?base=mem:%3Fsize=1M"

static uint8_t buf[8 * BLOCK];

static int fails_the_nth(struct rt_task *t, void *arg)
{
    struct blk_dev *dev;
    struct blk_chan *chan;

    CHECK(dev_open(t, BASE "&fail_at=3", &dev, &chan) == 0);
    for (int i = 1; i < 10; i++)
        CHECK(blk_write(t, chan, buf, 0, 1, 0) == (i == 3 ? -EIO : 0));
    dev_close(t, dev, chan);
    CHECK(dev_open(t, BASE "&fail_from=3", &dev, &chan) == 0);
    for (int i = 1; i < 10; i++)
        CHECK((i % 2 ? blk_flush(t, chan) : blk_read(t, chan, buf, 0, 1)) == (i >= 3 ? -EIO : 0));
    dev_close(t, dev, chan);
    return 0;
}
TEST(fails_the_nth, 1)

/* Bit i: the i-th of 64 requests failed. */
static int failures(struct rt_task *t, const char *uri, uint64_t *out_reads, uint64_t *out_writes)
{
    struct blk_dev *dev;
    struct blk_chan *chan;

    CHECK(dev_open(t, uri, &dev, &chan) == 0);
    for (unsigned i = 0; i < 64; i++) {
        *out_reads |= (uint64_t)(blk_read(t, chan, buf, 0, 1) < 0) << i;
        *out_writes |= (uint64_t)(blk_write(t, chan, buf, 0, 1, 0) < 0) << i;
    }
    dev_close(t, dev, chan);
    return 0;
}

static int fails_by_seed(struct rt_task *t, void *arg)
{
    uint64_t r[3] = {0}, w[3] = {0};

    CHECK(failures(t, BASE "&read_error=0.3&seed=5", &r[0], &w[0]) == 0);
    CHECK(failures(t, BASE "&read_error=0.3&seed=5", &r[1], &w[1]) == 0);
    CHECK(failures(t, BASE "&read_error=0.3&seed=6", &r[2], &w[2]) == 0);
    CHECK(r[0] == r[1] && r[0] != r[2]);
    CHECK(__builtin_popcountll(r[0]) > 5 && __builtin_popcountll(r[0]) < 40);
    CHECK(w[0] == 0);
    return 0;
}
TEST(fails_by_seed, 1)

static int tears_and_loses(struct rt_task *t, void *arg)
{
    struct blk_dev *dev;
    struct blk_chan *chan;

    memset(buf, 5, sizeof(buf));
    CHECK(dev_open(t, BASE "&torn=1", &dev, &chan) == 0);
    CHECK(blk_write(t, chan, buf, 0, 8, 0) == -EIO);
    CHECK(blk_read(t, chan, buf, 0, 8) == 0);
    CHECK(buf[0] == 5 && buf[4 * BLOCK - 1] == 5);
    CHECK(bytes_are_zero(buf + 4 * BLOCK, 4 * BLOCK));
    dev_close(t, dev, chan);
    CHECK(dev_open(t, BASE "&lost=1", &dev, &chan) == 0);
    CHECK(blk_write(t, chan, buf, 0, 8, 0) == 0);
    CHECK(blk_read(t, chan, buf, 0, 8) == 0);
    CHECK(bytes_are_zero(buf, sizeof(buf)));
    dev_close(t, dev, chan);
    return 0;
}
TEST(tears_and_loses, 1)

static int delays(struct rt_task *t, void *arg)
{
    struct blk_dev *dev;
    struct blk_chan *chan;
    uint64_t begin = rt_now();

    CHECK(dev_open(t, BASE "&delay=5ms", &dev, &chan) == 0);
    CHECK(blk_read(t, chan, buf, 0, 1) == 0);
    CHECK(rt_now() - begin >= 5 * NS_PER_MS);
    dev_close(t, dev, chan);
    return 0;
}
TEST(delays, 1)

static int read_forever(struct rt_task *t, void *arg)
{
    return blk_read(t, arg, buf, 0, 1);
}

/* Hung and delayed requests end when they are cancelled. */
static int cancels(struct rt_task *t, void *arg)
{
    static const char *const uris[] = {BASE "&hang=1", BASE "&delay=1m",
                                       "slice:?base=fault:%3Fbase=mem:%253Fsize=1M%26hang=1"};

    for (size_t i = 0; i < ARRAY_LEN(uris); i++) {
        struct blk_dev *dev;
        struct blk_chan *chan;
        struct rt_task *child;
        struct rt_req done;

        CHECK(dev_open(t, uris[i], &dev, &chan) == 0);
        rt_req_init_task(&done, t);
        CHECK(rt_task_start("reader", read_forever, chan, &done, &child) == 0);
        CHECK(rt_sleep(t, NS_PER_MS) == 0);
        CHECK(done.state == RT_REQ_PENDING);
        rt_task_cancel(child);
        CHECK(rt_wait(t, &done) == -ECANCELED);
        dev_close(t, dev, chan);
    }
    return 0;
}
TEST(cancels, 1)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fails_the_nth_test),   cmocka_unit_test(fails_by_seed_test),
        cmocka_unit_test(tears_and_loses_test), cmocka_unit_test(delays_test),
        cmocka_unit_test(cancels_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
