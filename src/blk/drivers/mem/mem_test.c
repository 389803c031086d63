/* SPDX-License-Identifier: Apache-2.0 */
/* What only memory has: pages given back, and one device for two reactors. */
#include "blk/blk_test.h"

#include <stdio.h>
#include <string.h>

static uint8_t page[8192];

/* Resident pages of this process. */
static long resident(void)
{
    long total = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f == NULL || fscanf(f, "%ld %ld", &total, &pages) != 2)
        pages = -1;
    if (f != NULL)
        fclose(f);
    return pages;
}

static int gives_pages_back(struct rt_task *t, void *arg)
{
    const uint32_t nblocks = 16384; /* 64 MiB */
    struct blk_dev *dev;
    struct blk_chan *chan;
    long before, full;

    CHECK(dev_open(t, "mem:?size=64M", &dev, &chan) == 0);
    before = resident();
    memset(page, 1, sizeof(page));
    for (uint32_t i = 0; i < nblocks; i += 2)
        CHECK(blk_write(t, chan, page, i, 2, 0) == 0);
    full = resident();
    CHECK(full - before > 12000);
    CHECK(blk_unmap(t, chan, 0, nblocks) == 0);
    CHECK(full - resident() > 12000);
    CHECK(blk_read(t, chan, page, nblocks - 2, 2) == 0);
    CHECK(bytes_are_zero(page, sizeof(page)));
    dev_close(t, dev, chan);
    return 0;
}
TEST(gives_pages_back, 1)

static int takes_memory_at_once(struct rt_task *t, void *arg)
{
    struct blk_dev *dev;
    struct blk_chan *chan;
    struct err why;
    long before = resident();

    CHECK(dev_open(t, "mem:?size=32M&prealloc=yes", &dev, &chan) == 0);
    CHECK(resident() - before >= 8192);
    dev_close(t, dev, chan);
    CHECK(blk_open(t, "mem:?size=1P&prealloc=yes", &dev, &why) < 0);
    return 0;
}
TEST(takes_memory_at_once, 1)

/* Blocks smaller than pages: what is beside the zeroed range stays. */
static int zeroes_parts_of_pages(struct rt_task *t, void *arg)
{
    struct blk_dev *dev;
    struct blk_chan *chan;

    CHECK(dev_open(t, "mem:?size=1M&block_size=512", &dev, &chan) == 0);
    for (unsigned lba = 1; lba < 24; lba++) {
        for (unsigned n = 1; n < 40; n++) {
            memset(page, 7, sizeof(page));
            for (unsigned i = 0; i < 64; i += 16)
                CHECK(blk_write(t, chan, page, i, 16, 0) == 0);
            CHECK(blk_unmap(t, chan, lba, n) == 0);
            for (unsigned i = 0; i < 64; i++) {
                CHECK(blk_read(t, chan, page, i, 1) == 0);
                CHECK(page[0] == (i >= lba && i < lba + n ? 0 : 7));
                CHECK(page[511] == page[0]);
            }
        }
    }
    dev_close(t, dev, chan);
    return 0;
}
TEST(zeroes_parts_of_pages, 1)

static int write_elsewhere(struct rt_task *t, void *arg)
{
    struct blk_chan *chan;

    CHECK(blk_chan_get(t, arg, &chan) == 0);
    memset(page, 9, sizeof(page));
    CHECK(blk_write(t, chan, page, 5, 1, 0) == 0);
    blk_chan_put(t, chan);
    return 0;
}

static int two_reactors(struct rt_task *t, void *arg)
{
    static struct blk_stats stats;
    struct blk_dev *dev;
    struct blk_chan *chan;

    CHECK(dev_open(t, "mem:?size=1M&name=two", &dev, &chan) == 0);
    CHECK(rt_on(t, rt_reactor(1), write_elsewhere, dev) == 0);
    memset(page, 0, sizeof(page));
    CHECK(blk_read(t, chan, page, 5, 1) == 0);
    CHECK(page[0] == 9 && page[4095] == 9);
    CHECK(blk_stats(t, dev, &stats) == 0); /* the closed channel's count is kept */
    CHECK(stats.op[BLK_WRITE].ops == 1 && stats.op[BLK_READ].ops == 1);
    dev_close(t, dev, chan);
    return 0;
}
TEST(two_reactors, 2)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_pages_back_test),
        cmocka_unit_test(takes_memory_at_once_test),
        cmocka_unit_test(zeroes_parts_of_pages_test),
        cmocka_unit_test(two_reactors_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
