/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage to stores that SPDK wrote: every single bit that is flipped in metadata in use has to be
 * found by blob_check(), and so has each of a list of wrong structures with right checksums.
 * A sample of the bytes, with KVASIR_LONG=1 all of them.
 */
#include "images.h"

#include "base/crc.h"
#include "blob/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static const char *dir;

struct bench {
    struct image img;
    struct blk_dev *dev;
    struct blk_chan *chan;
    uint8_t *page, *kept;
    const char *want; /* a finding that is no note has to say this */
    bool said, any;
    char heard[400]; /* what it said instead */
    unsigned tried, missed;
};

static void found(void *arg, const struct blob_check_finding *f)
{
    struct bench *b = arg;

    if (f->severity == BLOB_CHECK_NOTE)
        return;
    b->any = true;
    b->said |= b->want != NULL && strstr(f->text, b->want) != NULL;
    snprintf(b->heard, sizeof(b->heard), "%s: %s", f->structure, f->text);
}

static int check(struct rt_task *t, struct bench *b, struct blob_check_report *rep)
{
    struct blob_check_opts opts = {.found = found, .arg = b};
    int rc;

    b->said = b->any = false;
    b->heard[0] = '\0';
    rc = blob_check(t, b->chan, &opts, rep);
    return rc == -ENODATA || rc == -EBADMSG || rc == -ENOTSUP ? 0 : rc;
}

static int read_page(struct rt_task *t, struct bench *b, uint64_t at)
{
    uint32_t n = 4096 / b->img.block_bytes;

    return blk_read(t, b->chan, b->page, at * n, n);
}

static int write_page(struct rt_task *t, struct bench *b, uint64_t at, const uint8_t *page)
{
    uint32_t n = 4096 / b->img.block_bytes;

    return blk_write(t, b->chan, page, at * n, n, 0);
}

/* --- single bits ------------------------------------------------------------------------------ */

static int flip_page(struct rt_task *t, struct bench *b, uint64_t at, unsigned step)
{
    struct blob_check_report rep;
    int rc;

    rc = read_page(t, b, at);
    for (unsigned i = (unsigned)at % step; i < 4096 && rc == 0; i += step) {
        uint8_t bit = (uint8_t)(1u << (i * 5 + at) % 8);

        b->page[i] ^= bit;
        rc = write_page(t, b, at, b->page);
        if (rc == 0)
            rc = check(t, b, &rep);
        b->tried++;
        if (!b->any) {
            b->missed++;
            fprintf(stderr, "page %lu byte %u: nothing found\n", at, i);
        }
        b->page[i] ^= bit;
    }
    return rc < 0 ? rc : write_page(t, b, at, b->page);
}

/* Super block, masks, and the five metadata pages that clean.img uses. */
static int flip_task(struct rt_task *t, void *arg)
{
    struct bench *b = arg;
    unsigned step = getenv("KVASIR_LONG") != NULL ? 1 : 41;
    int rc;

    rc = image_open(t, &b->img, &b->dev, &b->chan);
    for (uint64_t at = 0; at < 9 && rc == 0; at++)
        rc = flip_page(t, b, at, step);
    blk_chan_put(t, b->chan);
    blk_close(t, b->dev);
    return rc;
}

/* --- structures ------------------------------------------------------------------------------- */

/* Byte offsets below are those of clean.img as the manual of the format prints it; md page 0 is
 * device page 4. */
struct wrong {
    const char *what;
    uint64_t page; /* of the device */
    unsigned at;   /* byte in it */
    unsigned len;  /* of `bytes`, at most 8 */
    uint64_t value;
    const char *want;
    bool no_crc; /* masks have none */
};

static const struct wrong wrongs[] = {
    {"a newer version", 0, 8, 4, 4, "version 4", false},
    {"clusters of no size", 0, 28, 4, 0, "clusters of 0 bytes", false},
    {"clusters of odd size", 0, 28, 4, 65537, "clusters of 65537 bytes", false},
    {"pages of odd size", 0, 92, 4, 5000, "metadata pages of 5000", false},
    {"a larger device", 0, 80, 8, 1ull << 40, "the device only", false},
    {"metadata in the masks", 0, 48, 4, 3, "metadata begins at page 3", false},
    {"a mask too short", 0, 44, 4, 0, "cluster mask has 0 pages", false},
    {"metadata larger than the device", 0, 52, 4, 0x7fffffff, "the metadata needs", false},
    {"no super blob", 0, 20, 8, UINT64_MAX, "without a super blob", false},
    {"a super blob that is not there", 0, 20, 8, 0x100000002, "is not there", false},
    {"reserved bytes", 0, 200, 1, 1, "reserved bytes", false},
    {"an io unit of odd size", 0, 88, 4, 513, "io unit of 513", false},
    {"a mask of another type", 1, 0, 1, 1, "its type is 1", true},
    {"a shorter mask", 2, 1, 4, 1000, "it has 1000 bits", true},
    {"a page taken for free", 1, 5, 1, 0x1b, "bit 2 is clear", true},
    {"a page taken for used", 1, 5, 1, 0x3f, "1 bits are set that no blob uses", true},
    {"a cluster taken for free", 2, 13, 1, 0xfe, "bit 64 is clear", true},
    {"a cluster taken for used", 2, 22, 1, 1, "bits are set", true},
    {"a blob that is none", 3, 5, 1, 0x0f, "no root", true},
    {"a blob that is not listed", 3, 5, 1, 0x09, "bit 1 is clear", true},
    {"a cluster of another blob", 8, 25, 4, 65, "also belongs to blob 0x100000001", false},
    {"a cluster with metadata in it", 8, 25, 4, 64, "holds metadata", false},
    {"a cluster behind the end", 8, 25, 4, 1024, "behind the end", false},
    {"a cluster twice", 8, 49, 4, 129, "in the blob twice", false},
    {"the beginning of an extent page", 8, 21, 4, 512, "it begins at cluster 512", false},
    {"the sequence of an extent page", 8, 8, 4, 1, "sequence 1", false},
    {"something after the list of clusters", 8, 4, 0, 0, NULL, false}, /* see below */
    {"a page behind the extent page", 8, 4088, 4, 5, "next 0x5", false},
    {"another blob's extent page", 7, 0x39, 0, 0, NULL, false},
    {"the next page is the page itself", 5, 4088, 4, 1, "in the blob twice", false},
    {"the next page is another blob's", 5, 4088, 4, 0, "already one of blob 0x100000000", false},
    {"the next page is not of this blob", 5, 4088, 4, 3, "has id 0x100000003", false},
    {"the next page is nowhere", 5, 4088, 4, 1024, "there are only 1024", false},
    {"the next page is empty", 5, 4088, 4, 900, "wrong checksum", false},
    {"an unknown flag", 7, 21, 8, 0x15, "unknown flags 0x10", false},
    {"an unknown data flag", 7, 29, 8, 2, "unknown flags 0x2", false},
    {"an unknown metadata flag", 7, 37, 8, 4, "unknown flags 0x4", false},
    {"not thin, with holes", 7, 21, 8, 4, "not thin", false},
    {"a table without its flag", 7, 21, 8, 1, "announces", false},
    {"an external snapshot of nothing", 7, 21, 8, 13, "no EXTSNAP", false},
    {"an unknown descriptor", 7, 45, 1, 99, "unknown type 99", false},
    {"a descriptor too long", 7, 46, 4, 5000, "does not fit", false},
    {"an xattr that does not add up", 7, 50, 2, 5, "do not fill it", false},
    {"a name without an end", 5, 50 + 4 + 4 + 63, 1, 'x', "no NUL", false},
    {"a uuid that is none", 5, 0x7a + 5 + 4 + 4, 1, 'x', "its uuid is none", false},
    {"the table counts more clusters", 5, 0xac + 5, 8, 65, "the table expects 65", false},
};

/* Those whose place depends on others. */
static uint64_t value_of(struct wrong *w)
{
    if (w->page == 7 && w->at == 0x39) { /* the table of "thin" names the page of "thick" */
        *w = (struct wrong){w->what, 7, 0xac + 5 + 8, 4, 2, "also belongs to blob 0x100000001",
                            false};
    } else if (w->page == 8 && w->at == 4) {
        *w = (struct wrong){w->what, 8, 16 + 5 + 516, 5, 0x0000000102ull, "something follows",
                            false};
    }
    return w->value;
}

static int try_wrong(struct rt_task *t, struct bench *b, const struct wrong *in)
{
    struct blob_check_report rep;
    struct wrong w = *in;
    uint64_t v = value_of(&w);
    int rc;

    rc = read_page(t, b, w.page);
    if (rc < 0)
        return rc;
    memcpy(b->kept, b->page, 4096);
    for (unsigned i = 0; i < w.len; i++)
        b->page[w.at + i] = (uint8_t)(v >> 8 * i);
    if (!w.no_crc)
        le32_put(b->page + 4092, crc32c(0, b->page, 4092));
    b->want = w.want;
    rc = write_page(t, b, w.page, b->page);
    if (rc == 0)
        rc = check(t, b, &rep);
    b->tried++;
    if (!b->said) {
        b->missed++;
        fprintf(stderr, "%s: no finding says '%s', but: %s\n", w.what, w.want, b->heard);
    }
    return rc < 0 ? rc : write_page(t, b, w.page, b->kept);
}

static int wrong_task(struct rt_task *t, void *arg)
{
    struct bench *b = arg;
    int rc;

    rc = image_open(t, &b->img, &b->dev, &b->chan);
    for (unsigned i = 0; i < ARRAY_LEN(wrongs) && rc == 0; i++)
        rc = try_wrong(t, b, &wrongs[i]);
    blk_chan_put(t, b->chan);
    blk_close(t, b->dev);
    return rc;
}

/* --- snapshots -------------------------------------------------------------------------------- */

/* Makes every SNAP of snapshots.img name `id`, or the blob itself, and checks. */
static int set_parent(struct rt_task *t, struct bench *b, bool self, uint64_t id)
{
    static const char snap[] = "\4\0\10\0SNAP";
    struct blob_check_report rep;
    unsigned changed = 0;
    int rc = 0;

    for (uint64_t page = 4; page < 64 && rc == 0 && changed == 0; page++) {
        uint8_t *at;

        rc = read_page(t, b, page);
        at = rc == 0 ? memmem(b->page, 4092, snap, sizeof(snap) - 1) : NULL;
        if (at == NULL || at[8] == 'T' || at[8] == 'R')
            continue;
        memcpy(b->kept, b->page, 4096);
        le64_put(at + 8, self ? le64_at(b->page) : id);
        le32_put(b->page + 4092, crc32c(0, b->page, 4092));
        rc = write_page(t, b, page, b->page);
        if (rc == 0)
            rc = check(t, b, &rep);
        if (rc == 0)
            rc = write_page(t, b, page, b->kept);
        changed++;
    }
    b->tried++;
    b->missed += !b->said || changed != 1;
    return rc;
}

static int snap_task(struct rt_task *t, void *arg)
{
    struct bench *b = arg;
    int rc;

    rc = image_open(t, &b->img, &b->dev, &b->chan);
    if (rc == 0) {
        b->want = "form a cycle";
        rc = set_parent(t, b, true, 0);
    }
    if (rc == 0) {
        b->want = "is not there: it cannot be opened";
        rc = set_parent(t, b, false, 0x1000003ff);
    }
    if (rc == 0) {
        b->want = "is not read-only";
        rc = set_parent(t, b, false, 0x100000000);
    }
    blk_chan_put(t, b->chan);
    blk_close(t, b->dev);
    return rc;
}

/* --- frame ------------------------------------------------------------------------------------ */

static void run(const char *name, rt_task_fn fn, unsigned tried_min)
{
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = MIB};
    struct bench b = {.page = aligned_alloc(4096, 4096), .kept = aligned_alloc(4096, 4096)};
    struct err why = {""};

    assert_int_equal(image_load(dir, name, &b.img), 0);
    assert_int_equal(rt_run(&cfg, fn, &b, &why), 0);
    assert_true(b.tried >= tried_min);
    assert_int_equal(b.missed, 0);
    image_free(&b.img);
    free(b.page);
    free(b.kept);
}

static void flip_test(void **state)
{
    (void)state;
    run("clean", flip_task, 890);
}

static void wrong_test(void **state)
{
    (void)state;
    run("clean", wrong_task, ARRAY_LEN(wrongs));
}

static void snap_test(void **state)
{
    (void)state;
    run("snapshots", snap_task, 3);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flip_test),
        cmocka_unit_test(wrong_test),
        cmocka_unit_test(snap_test),
    };

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY-OF-IMAGES\n", argv[0]);
        return 2;
    }
    dir = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
