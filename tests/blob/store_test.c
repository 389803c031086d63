/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores that SPDK wrote, opened by src/blob: first only for reading, then for writing (which
 * replays the ones that were killed and closes all cleanly), then once more. Each time blobs,
 * flags, parents, xattrs and every byte are what the raw reader sees in the image as it was, and
 * after a clean close the check finds nothing.
 */
#include "images.h"

#include "blob/blob.h"
#include "blob/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static const char *dir;
static json_t *manifest;

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        return -EILSEQ;                                                                            \
    } while (0)

#define BLOBS_MAX 32

struct stage {
    struct image img;
    uint64_t free_clusters; /* wanted */
    struct blk_dev *dev;
    struct blk_chan *chan;
    struct blob_raw raw;
    struct blob_check_blob blob[BLOBS_MAX];
    unsigned nblobs;
    struct blob_check_report rep;
    struct blob_raw_chain chain;
    uint8_t *buf, *raw_buf;
    uint64_t bytes; /* compared */
};

static void blob_seen(void *arg, const struct blob_check_blob *b)
{
    struct stage *s = arg;

    if (s->nblobs < BLOBS_MAX)
        s->blob[s->nblobs++] = *b;
}

static int compare_attrs(const struct blob *b, const struct blob_raw_blob *raw)
{
    unsigned n = 0;

    for (unsigned i = 0; i < raw->nattrs; i++) {
        const struct blob_raw_attr *a = &raw->attr[i];
        char name[256];
        const void *value;
        uint16_t len;

        if (a->internal)
            continue;
        n++;
        snprintf(name, sizeof(name), "%.*s", (int)a->name.len, (const char *)a->name.ptr);
        if (blob_get_xattr(b, name, &value, &len) < 0)
            FAIL("blob 0x%lx has no xattr %s", raw->id, name);
        if (!bytes_eq(bytes_make(value, len), a->value))
            FAIL("blob 0x%lx: xattr %s differs", raw->id, name);
    }
    struct blob_xattr x;
    if (blob_xattr_at(b, n, &x) != -ENOENT || (n > 0 && blob_xattr_at(b, n - 1, &x) < 0))
        FAIL("blob 0x%lx has not %u xattrs", raw->id, n);
    return 0;
}

static int compare_info(const struct blob *b, const struct blob_check_blob *want)
{
    struct blob_info i;

    blob_info(b, &i);
    if (i.id != want->id || i.clusters != want->clusters || i.allocated_clusters != want->allocated)
        FAIL("blob 0x%lx: %lu of %lu clusters, not %lu of %lu", i.id, i.allocated_clusters,
             i.clusters, want->allocated, want->clusters);
    if (i.thin != ((want->invalid & BLOB_RAW_THIN) != 0) || i.parent != want->parent ||
        i.snapshot != (want->nclones > 0) || i.clone != (want->parent != UINT64_MAX) ||
        i.nclones != want->nclones)
        FAIL("blob 0x%lx: thin %d parent 0x%lx clones %u", i.id, i.thin, i.parent, i.nclones);
    if (i.read_only != ((want->data_ro & BLOB_RAW_READ_ONLY) != 0))
        FAIL("blob 0x%lx: read-only %d", i.id, i.read_only);
    return 0;
}

static int compare_bytes(struct rt_task *t, struct stage *s, struct blob_chan *chan, struct blob *b)
{
    uint32_t bytes = s->raw.super.cluster_bytes;
    struct blob_info i;

    blob_info(b, &i);
    for (uint64_t n = 0; n < i.clusters; n++) {
        int rc = blob_read(t, chan, b, s->buf, n * bytes, bytes);
        int have;

        if (rc < 0)
            FAIL("blob 0x%lx: cluster %lu: %s", i.id, n, err_str(rc));
        have = blob_raw_chain_read(t, &s->raw, &s->chain, n, s->raw_buf);
        if (have < 0)
            return have;
        if (have == 0 ? !bytes_are_zero(s->buf, bytes) : memcmp(s->buf, s->raw_buf, bytes) != 0)
            FAIL("blob 0x%lx: cluster %lu differs", i.id, n);
        s->bytes += bytes;
    }
    return 0;
}

static int compare_blob(struct rt_task *t, struct stage *s, struct blob_store *bs,
                        struct blob_chan *chan, const struct blob_check_blob *want)
{
    struct blob *b;
    int rc;

    rc = blob_open(t, bs, want->id, &b);
    if (rc < 0)
        FAIL("blob 0x%lx: %s", want->id, err_str(rc));
    rc = blob_raw_chain_load(t, &s->raw, want->id, &s->chain);
    if (rc == 0) {
        rc = compare_info(b, want);
        if (rc == 0)
            rc = compare_attrs(b, s->chain.blob[0]);
        if (rc == 0)
            rc = compare_bytes(t, s, chan, b);
        blob_raw_chain_fini(&s->chain);
    }
    blob_close(t, b);
    return rc;
}

static int compare_store(struct rt_task *t, struct stage *s, struct blob_store *bs, bool was_clean)
{
    struct blob_chan *chan;
    struct blob_store_info info;
    uint64_t id = 0;
    int rc;

    blob_store_info(bs, &info);
    if (info.free_clusters != s->free_clusters || info.super_blob != s->raw.super.super_blob ||
        info.was_clean != was_clean || info.unreadable != 0 ||
        info.cluster_bytes != s->raw.super.cluster_bytes || info.block_bytes != s->img.block_bytes)
        FAIL("%s: %lu free clusters, clean %d, %u unreadable", s->img.name, info.free_clusters,
             info.was_clean, info.unreadable);
    rc = blob_chan_get(t, bs, &chan);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < s->nblobs && rc == 0; i++) {
        rc = blob_next(t, bs, id, &id);
        if (rc == 0 && id != s->blob[i].id)
            rc = -EILSEQ;
        if (rc == 0)
            rc = compare_blob(t, s, bs, chan, &s->blob[i]);
        id++;
    }
    if (rc == 0 && blob_next(t, bs, id, &id) != -ENOENT)
        rc = -EILSEQ;
    blob_chan_put(t, chan);
    return rc;
}

static int open_and_compare(struct rt_task *t, struct stage *s, unsigned flags, bool was_clean)
{
    struct blob_store *bs;
    struct err why = {""};
    int rc;

    rc = blob_store_open(t, blk_uri(s->dev), NULL, flags, &bs, &why);
    if (rc < 0)
        FAIL("%s: %s", s->img.name, why.text);
    rc = compare_store(t, s, bs, was_clean);
    blob_store_close(t, bs);
    return rc;
}

static void print_finding(void *arg, const struct blob_check_finding *f)
{
    fprintf(stderr, "%s: %s at %lu: %s\n", blob_check_severity_name(f->severity), f->structure,
            f->offset, f->text);
}

/* What we left behind after a clean close. */
static int check_after(struct rt_task *t, struct stage *s)
{
    struct blob_check_opts opts = {.found = print_finding};
    struct blob_check_report rep;
    int rc;

    rc = blob_check(t, s->chan, &opts, &rep);
    if (rc < 0)
        return rc;
    if (rep.errors + rep.warnings + rep.notes > 0 || !rep.clean ||
        rep.free_clusters != s->free_clusters || rep.blobs != s->nblobs)
        FAIL("%s: after the close %lu errors, %lu warnings, clean %d", s->img.name, rep.errors,
             rep.warnings, rep.clean);
    return 0;
}

static int stages(struct rt_task *t, struct stage *s)
{
    struct blob_check_opts opts = {.blob = blob_seen, .arg = s};
    int rc;

    rc = blob_check(t, s->chan, &opts, &s->rep);
    if (rc == 0)
        rc = blob_raw_init(t, s->chan, &s->raw);
    if (rc == 0)
        rc = open_and_compare(t, s, BLOB_OPEN_READ_ONLY, s->rep.clean);
    if (rc == 0)
        rc = open_and_compare(t, s, 0, s->rep.clean);
    if (rc == 0)
        rc = check_after(t, s);
    if (rc == 0)
        rc = open_and_compare(t, s, 0, true);
    if (rc == 0)
        rc = check_after(t, s);
    blob_raw_fini(&s->raw);
    return rc;
}

static int stage_task(struct rt_task *t, void *arg)
{
    struct stage *s = arg;
    int rc;

    rc = image_open(t, &s->img, &s->dev, &s->chan);
    if (rc < 0)
        return rc;
    rc = stages(t, s);
    blk_chan_put(t, s->chan);
    blk_close(t, s->dev);
    return rc;
}

static void store_test(void **state)
{
    const char *name = *state;
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = 8 * MIB};
    json_t *lvs = json_object_get(json_object_get(manifest, name), "lvstore");
    struct stage *s = calloc(1, sizeof(*s));
    struct err why = {""};

    assert_non_null(s);
    s->buf = aligned_alloc(4096, MIB);
    s->raw_buf = aligned_alloc(4096, MIB);
    s->free_clusters =
        lvs != NULL ? (uint64_t)json_integer_value(json_object_get(lvs, "free_clusters")) : 52;
    assert_int_equal(image_load(dir, name, &s->img), 0);
    assert_int_equal(rt_run(&cfg, stage_task, s, &why), 0);
    assert_true(s->bytes >= 3 * MIB);
    image_free(&s->img);
    free(s->buf);
    free(s->raw_buf);
    free(s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(store_test, (void *)(uintptr_t) "clean"),
        cmocka_unit_test_prestate(store_test, (void *)(uintptr_t) "snapshots"),
        cmocka_unit_test_prestate(store_test, (void *)(uintptr_t) "killed-metadata"),
        cmocka_unit_test_prestate(store_test, (void *)(uintptr_t) "killed-writing"),
        cmocka_unit_test_prestate(store_test, (void *)(uintptr_t) "fragmented"),
        cmocka_unit_test_prestate(store_test, (void *)(uintptr_t) "xattrs"),
    };
    int rc;

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY-OF-IMAGES\n", argv[0]);
        return 2;
    }
    dir = argv[1];
    manifest = image_manifest(dir);
    if (manifest == NULL)
        return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(manifest);
    return rc;
}
