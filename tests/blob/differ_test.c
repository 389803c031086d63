/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two readers of a blobstore against each other. Metadata pages of stores that SPDK wrote are
 * changed at random places, under right checksums. What the check takes for faultless has to open,
 * with the same blobs, sizes and parents; what a load does to the rest (refuse it, or leave blobs
 * out) must not break the check afterwards. KVASIR_ROUNDS says how often; it prints what a round
 * did that went wrong.
 */
#include "images.h"

#include "base/crc.h"
#include "blob/blob.h"
#include "blob/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define PAGES_MAX 64
#define BLOBS_MAX 64

static const char *dir;

struct duel {
    struct image img;
    struct blk_dev *dev;
    struct blk_chan *chan;
    uint64_t rng;
    uint32_t first;           /* device page of md page 0 */
    uint32_t page[PAGES_MAX]; /* those in use, of the device */
    unsigned npages;
    uint8_t *buf;
    uint8_t *kept; /* the first pages of the device */
    uint32_t nkept;
    struct blob_check_blob blob[BLOBS_MAX];
    unsigned nblobs;
    struct blob_check_report rep;
    char said[200];
    unsigned faultless, refused, opened;
};

static uint32_t below(struct duel *d, uint32_t n)
{
    d->rng = d->rng * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((d->rng >> 33) % n);
}

static void found(void *arg, const struct blob_check_finding *f)
{
    struct duel *d = arg;

    if (f->severity == BLOB_CHECK_ERROR)
        snprintf(d->said, sizeof(d->said), "%s at %lu: %s", f->structure, f->offset, f->text);
}

static void blob_seen(void *arg, const struct blob_check_blob *b)
{
    struct duel *d = arg;

    if (d->nblobs < BLOBS_MAX)
        d->blob[d->nblobs++] = *b;
}

static int check(struct rt_task *t, struct duel *d)
{
    struct blob_check_opts opts = {.found = found, .blob = blob_seen, .arg = d};

    d->nblobs = 0;
    d->said[0] = '\0';
    return blob_check(t, d->chan, &opts, &d->rep);
}

static int move_pages(struct rt_task *t, struct duel *d, uint8_t *buf, uint32_t from, uint32_t n,
                      bool write)
{
    uint32_t blocks = 4096 / d->img.block_bytes;

    return write ? blk_write(t, d->chan, buf, (uint64_t)from * blocks, n * blocks, 0)
                 : blk_read(t, d->chan, buf, (uint64_t)from * blocks, n * blocks);
}

/* --- changes ---------------------------------------------------------------------------------- */

/* Numbers that mean something somewhere. */
static uint32_t telling(struct duel *d)
{
    static const uint32_t some[] = {0,          1,          2,          3,    4,   5,    8,
                                    63,         64,         65,         127,  512, 1023, 1024,
                                    0x7fffffff, 0xffffffff, 0x80000000, 4088, 4072};

    return below(d, 3) == 0 ? below(d, 200) : some[below(d, ARRAY_LEN(some))];
}

/* One change of a page: a bit, a byte, or a number, mostly where descriptors are. */
static void mutate(struct duel *d, uint8_t *page)
{
    uint32_t at = below(d, 8) == 0 ? below(d, 4092) : below(d, 10) == 0 ? 4088 : below(d, 330);

    switch (below(d, 4)) {
    case 0:
        page[at] ^= (uint8_t)(1u << below(d, 8));
        break;
    case 1:
        page[at] = (uint8_t)telling(d);
        break;
    default:
        at = MIN(at, 4088u);
        le32_put(page + at, telling(d));
        break;
    }
}

static int change(struct rt_task *t, struct duel *d)
{
    unsigned n = 1 + below(d, 3);
    int rc = 0;

    for (unsigned i = 0; i < n && rc == 0; i++) {
        uint32_t page = below(d, 12) == 0 ? 0 : d->page[below(d, d->npages)];

        rc = move_pages(t, d, d->buf, page, 1, false);
        mutate(d, d->buf);
        le32_put(d->buf + 4092, crc32c(0, d->buf, 4092));
        if (rc == 0)
            rc = move_pages(t, d, d->buf, page, 1, true);
    }
    return rc;
}

/* --- the store -------------------------------------------------------------------------------- */

#define WRONG(...)                                                                                 \
    do {                                                                                           \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        return -EILSEQ;                                                                            \
    } while (0)

/* The check found nothing: each of its blobs is there and the same. */
static int compare(struct rt_task *t, struct duel *d, struct blob_store *bs)
{
    struct blob_store_info info;

    blob_store_info(bs, &info);
    if (info.unreadable > 0)
        WRONG("%u blobs cannot be read", info.unreadable);
    if (info.free_clusters != d->rep.free_clusters)
        WRONG("%lu clusters are free, the check says %lu", info.free_clusters,
              d->rep.free_clusters);
    for (unsigned i = 0; i < d->nblobs; i++) {
        const struct blob_check_blob *want = &d->blob[i];
        struct blob_info b;
        struct blob *blob;
        int rc;

        if (want->making || want->removing || (want->invalid & BLOB_RAW_EXTERNAL))
            continue;
        rc = blob_open(t, bs, want->id, &blob);
        if (rc < 0)
            WRONG("blob 0x%lx does not open: %s", want->id, err_str(rc));
        blob_info(blob, &b);
        blob_close(t, blob);
        if (b.clusters != want->clusters || b.allocated_clusters != want->allocated ||
            b.parent != want->parent)
            WRONG("blob 0x%lx: %lu of %lu clusters, parent 0x%lx; the check says %lu, %lu, 0x%lx",
                  want->id, b.allocated_clusters, b.clusters, b.parent, want->allocated,
                  want->clusters, want->parent);
    }
    return 0;
}

static int open_store(struct rt_task *t, struct duel *d, unsigned flags, bool faultless)
{
    struct blob_store *bs;
    struct err why = {""};
    int rc;

    rc = blob_store_open(t, blk_uri(d->dev), NULL, flags, &bs, &why);
    if (rc < 0) {
        if (faultless)
            WRONG("the check finds nothing, but: %s", why.text);
        d->refused++;
        return rc == -EBADMSG || rc == -ENOTSUP || rc == -ENODATA || rc == -ENOMEM ? 1 : rc;
    }
    d->opened++;
    rc = faultless ? compare(t, d, bs) : 0;
    blob_store_close(t, bs);
    return rc;
}

static int round_of(struct rt_task *t, struct duel *d)
{
    bool faultless;
    int rc;

    rc = change(t, d);
    if (rc < 0)
        return rc;
    rc = check(t, d);
    if (rc < 0 && rc != -EBADMSG && rc != -ENOTSUP && rc != -ENODATA && rc != -ENOMEM)
        return rc;
    faultless = rc == 0 && d->rep.errors + d->rep.warnings == 0;
    d->faultless += faultless;
    rc = open_store(t, d, BLOB_OPEN_READ_ONLY, faultless);
    if (rc != 0)
        return MIN(rc, 0);
    rc = open_store(t, d, 0, faultless);
    if (rc != 0)
        return MIN(rc, 0);
    rc = check(t, d);
    if (faultless && (rc < 0 || d->rep.errors + d->rep.warnings > 0))
        WRONG("after it was opened and closed: %s", d->said);
    return rc < 0 && rc != -EBADMSG && rc != -ENOTSUP && rc != -ENODATA && rc != -ENOMEM ? rc : 0;
}

/* Which pages are worth changing. */
static int look(struct rt_task *t, struct duel *d)
{
    int rc;

    rc = check(t, d);
    if (rc < 0)
        return rc;
    d->first = d->rep.super.md_start;
    for (uint32_t i = d->first; i < d->first + 64 && d->npages < PAGES_MAX && rc == 0; i++) {
        rc = move_pages(t, d, d->buf, i, 1, false);
        if (rc == 0 && !bytes_are_zero(d->buf, 4096))
            d->page[d->npages++] = i;
    }
    d->nkept = d->first + 80;
    return rc < 0 ? rc : move_pages(t, d, d->kept, 0, d->nkept, false);
}

static int duel(struct rt_task *t, void *arg)
{
    unsigned rounds =
        getenv("KVASIR_ROUNDS") != NULL ? (unsigned)atoi(getenv("KVASIR_ROUNDS")) : 200;
    struct duel *d = arg;
    int rc;

    rc = image_open(t, &d->img, &d->dev, &d->chan);
    if (rc == 0)
        rc = look(t, d);
    for (unsigned i = 0; i < rounds && rc == 0; i++) {
        uint64_t rng = d->rng;

        rc = round_of(t, d);
        if (rc < 0)
            fprintf(stderr, "%s, round %u (state %lu): %s\n", d->img.name, i, rng, err_str(rc));
        else
            rc = move_pages(t, d, d->kept, 0, d->nkept, true);
    }
    blk_chan_put(t, d->chan);
    blk_close(t, d->dev);
    return rc;
}

static void duel_test(void **state)
{
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = 4 * MIB};
    struct duel *d = calloc(1, sizeof(*d));
    struct err why = {""};

    assert_non_null(d);
    d->rng = 1;
    d->buf = aligned_alloc(4096, 4096);
    d->kept = aligned_alloc(4096, 4096 * 200);
    assert_int_equal(image_load(dir, *state, &d->img), 0);
    assert_int_equal(rt_run(&cfg, duel, d, &why), 0);
    print_message("%s: %u faultless, %u opened, %u refused\n", d->img.name, d->faultless, d->opened,
                  d->refused);
    assert_true(d->opened > 0 && d->refused > 0);
    image_free(&d->img);
    free(d->buf);
    free(d->kept);
    free(d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(duel_test, (void *)(uintptr_t) "clean"),
        cmocka_unit_test_prestate(duel_test, (void *)(uintptr_t) "snapshots"),
        cmocka_unit_test_prestate(duel_test, (void *)(uintptr_t) "killed-metadata"),
        cmocka_unit_test_prestate(duel_test, (void *)(uintptr_t) "xattrs"),
    };

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY-OF-IMAGES\n", argv[0]);
        return 2;
    }
    dir = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
