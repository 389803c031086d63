/* SPDX-License-Identifier: Apache-2.0 */
/* Where a slice lies, and how it follows its base. */
#include "blk/blk_test.h"

#include <string.h>

#define BLOCK 4096u

static uint8_t buf[4 * BLOCK];

static int lies_where_told(struct rt_task *t, void *arg)
{
    struct blk_dev *base, *dev;
    struct blk_chan *bchan, *chan;

    CHECK(dev_open(t, "mem:?size=1M&name=s", &base, &bchan) == 0);
    CHECK(dev_open(t, "slice:?offset=64K&length=64K&base=mem:%3Fname=s", &dev, &chan) == 0);
    CHECK(blk_info(dev)->nblocks == 16);
    CHECK(memcmp(blk_info(dev)->uuid, blk_info(base)->uuid, 16) != 0);
    memset(buf, 3, sizeof(buf));
    CHECK(blk_write(t, chan, buf, 0, 1, 0) == 0);
    CHECK(blk_write(t, chan, buf, 15, 1, 0) == 0);
    CHECK(blk_write(t, chan, buf, 16, 1, 0) == -ERANGE);
    for (unsigned i = 0; i < 64; i++) {
        CHECK(blk_read(t, bchan, buf, i, 1) == 0);
        CHECK(buf[0] == (i == 16 || i == 31 ? 3 : 0));
    }
    dev_close(t, dev, chan);
    dev_close(t, base, bchan);
    return 0;
}
TEST(lies_where_told, 1)

static int follows_its_base(struct rt_task *t, void *arg)
{
    struct blk_dev *base, *open_end, *fixed;
    struct blk_chan *bchan, *chan;
    struct err why;

    CHECK(dev_open(t, "mem:?size=1M&name=s", &base, &bchan) == 0);
    CHECK(dev_open(t, "slice:?offset=64K&base=mem:%3Fname=s", &open_end, &chan) == 0);
    CHECK(blk_open(t, "slice:?offset=64K&length=64K&base=mem:%3Fname=s", &fixed, &why) == 0);
    CHECK(blk_info(open_end)->nblocks == 240);
    blk_resized(base, 200);
    CHECK(rt_sleep(t, NS_PER_MS) == 0);
    CHECK(blk_info(open_end)->nblocks == 184);
    CHECK(blk_info(fixed)->nblocks == 16);
    CHECK(blk_claim(base, BLK_CLAIM_EXCLUSIVE, "store", &why) == -EBUSY);
    CHECK(strstr(why.text, "slice") != NULL);
    blk_removed(base);
    CHECK(rt_sleep(t, NS_PER_MS) == 0);
    CHECK(blk_read(t, chan, buf, 0, 1) == -ENODEV);
    blk_close(t, fixed);
    dev_close(t, open_end, chan);
    dev_close(t, base, bchan);
    return 0;
}
TEST(follows_its_base, 1)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lies_where_told_test),
        cmocka_unit_test(follows_its_base_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
