/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layer: sharing, claims, watches, statistics, cancelling, removal, locks between reactors.
 * What every driver has to do under it is in tests/conformance.
 */
#include "blk/blk_test.h"

#include <string.h>

#define BLOCK 4096u

static uint8_t buf_a[16 * BLOCK], buf_b[16 * BLOCK];

/* --- opening ----------------------------------------------------------------------------------- */

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

/* --- reading and writing ----------------------------------------------------------------------- */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_shares_test),
        cmocka_unit_test(open_refuses_test),
        cmocka_unit_test(move_and_count_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
