/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a crash leaves of a segment's life is nobody's: its head and first block are lost, a later
 * block is not, the segment begins another life, and after another crash the old block lies just
 * behind the new ones.
 */
#include "kv/drivers/blobkv/format.h"

#include "blk/blk.h"
#include "kv/kv.h"
#include "rt/rt.h"
#include "rt/task.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define DEV_BYTES (8 * MIB)
#define SECTOR 512u
#define STORE "blob:?sync=no&bdev=mem:%3Fname="

static const char *const keys[] = {"first", "second", "third"};

struct test {
    struct blk_dev *dev[3]; /* each the one before after a power cut */
    uint8_t *buf;           /* a device's bytes */
    uint32_t gen[2];        /* of the segment in question, in its two lives */
};

static int put(struct rt_task *t, struct kv_dev *kv, const char *key, uint8_t seed)
{
    uint8_t value[1000];
    struct kv_chan *chan;
    int rc = kv_chan_get(t, kv, &chan);

    if (rc < 0)
        return rc;
    memset(value, seed, sizeof(value));
    rc = kv_store(t, chan, bytes_make(key, strlen(key)), bytes_make(value, sizeof(value)), 0);
    kv_chan_put(t, chan);
    return rc;
}

static int whole(struct rt_task *t, struct blk_dev *dev, uint8_t *buf, bool write)
{
    uint32_t n = (uint32_t)(blk_info(dev)->nblocks);
    struct blk_chan *chan;
    int rc = blk_chan_get(t, dev, &chan);

    for (uint32_t at = 0; at < n && rc == 0; at += MIB / SECTOR) {
        uint8_t *p = buf + (size_t)at * SECTOR;

        rc = write ? blk_write(t, chan, p, at, MIB / SECTOR, 0)
                   : blk_read(t, chan, p, at, MIB / SECTOR);
    }
    blk_chan_put(t, chan);
    return rc;
}

/* The head of the hot segment: the only one there is, or NULL. */
static uint8_t *hot_head(uint8_t *buf)
{
    for (uint64_t at = 0; at < DEV_BYTES; at += SECTOR) {
        const struct bkv_seg_head *head = (const struct bkv_seg_head *)(buf + at);

        if (le32_get(head->magic) == BKV_SEG_MAGIC && head->stream == BKV_HOT)
            return buf + at;
    }
    return NULL;
}

static bool is_block(const uint8_t *p, uint32_t number)
{
    const struct bkv_block_head *head = (const struct bkv_block_head *)p;

    return le32_get(head->magic) == BKV_BLOCK_MAGIC && le32_get(head->number) == number;
}

/* Stores `n` keys one after the other, and copies the device as it is then. */
static int live(struct rt_task *t, struct test *test, const char *uri, unsigned n, unsigned from)
{
    struct kv_dev *kv;
    struct err why = {0};
    int rc = kv_open(t, uri, &kv, &why);

    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", uri, why.text);
        return rc;
    }
    for (unsigned i = 0; i < n && rc == 0; i++)
        rc = put(t, kv, keys[i], (uint8_t)(from + i));
    if (rc == 0)
        rc = whole(t, test->dev[from], test->buf, false);
    kv_close(t, kv);
    return rc;
}

/* Which of the keys there are: bit by bit; or what failed. */
static int look(struct rt_task *t, const char *uri)
{
    struct kv_dev *kv;
    struct kv_chan *chan;
    struct err why = {0};
    int rc = kv_open(t, uri, &kv, &why), there = 0;

    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", uri, why.text);
        return rc;
    }
    rc = kv_chan_get(t, kv, &chan);
    for (unsigned i = 0; i < ARRAY_LEN(keys) && rc == 0; i++) {
        uint64_t len, version;

        rc = kv_stat(t, chan, bytes_make(keys[i], strlen(keys[i])), &len, &version);
        there |= rc == 0 ? 1 << i : 0;
        rc = rc == -ENOENT ? 0 : rc;
    }
    kv_chan_put(t, chan);
    kv_close(t, kv);
    return rc < 0 ? rc : there;
}

static int two_lives(struct rt_task *t, struct test *test)
{
    uint8_t *head, *block;
    int rc = live(t, test, STORE "bkv-life-0", 3, 0);

    if (rc < 0)
        return rc;
    head = hot_head(test->buf);
    if (head == NULL)
        return -ENODATA;
    test->gen[0] = le32_get(((struct bkv_seg_head *)head)->gen);
    /* The head and the first block did not make it to the medium. */
    block = head + SECTOR;
    if (!is_block(block, 0))
        return -ENODATA;
    memset(head, 0, SECTOR);
    do {
        memset(block, 0, SECTOR);
        block += SECTOR;
    } while (!is_block(block, 1));
    rc = whole(t, test->dev[1], test->buf, true);
    if (rc == 0)
        rc = live(t, test, STORE "bkv-life-1", 1, 1);
    if (rc < 0)
        return rc;
    if (hot_head(test->buf) != head || !is_block(block, 1))
        return -ENODATA; /* another segment, or a block of another length: nothing is shown */
    test->gen[1] = le32_get(((struct bkv_seg_head *)head)->gen);
    rc = whole(t, test->dev[2], test->buf, true);
    return rc == 0 ? look(t, STORE "bkv-life-2") : rc;
}

static int run_lives(struct rt_task *t, void *arg)
{
    struct test *test = arg;
    struct err why;
    int rc = 0;

    for (unsigned i = 0; i < 3 && rc == 0; i++) {
        char uri[64];

        snprintf(uri, sizeof(uri), "mem:?name=bkv-life-%u&size=8M&block_size=%u", i, SECTOR);
        rc = blk_open(t, uri, &test->dev[i], &why);
    }
    if (rc == 0)
        rc = two_lives(t, test);
    for (unsigned i = 0; i < 3; i++) {
        if (test->dev[i] != NULL)
            blk_close(t, test->dev[i]);
    }
    return rc;
}

static void test_scraps_of_a_life(void **state)
{
    struct test test = {.buf = malloc(DEV_BYTES)};
    struct err why = {0};
    int rc;

    assert_non_null(test.buf);
    rc = rt_run(&(struct rt_config){.reactors = 1}, run_lives, &test, &why);
    assert_int_equal(rc, 1); /* the first key, and none that came back */
    assert_true(test.gen[1] > test.gen[0]);
    free(test.buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scraps_of_a_life),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
