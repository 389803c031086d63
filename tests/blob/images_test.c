/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blob_check() and the raw reader on stores that SPDK wrote: what they find is what SPDK reported
 * of them (manifest.json), down to the SHA-256 of each volume.
 */
#include "images.h"

#include "blob/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include <openssl/evp.h>

static const char *dir;
static json_t *manifest;

#define BLOBS_MAX 32

/* What the check told, kept by name for the main stack. */
struct seen {
    uint64_t id, parent, clusters, allocated, invalid, data_ro;
    uint32_t nclones;
    char name[65], uuid[40];
    char sha256[65];
};
struct look {
    struct image img;
    struct blob_check_report rep;
    struct seen blob[BLOBS_MAX];
    unsigned nblobs;
    unsigned said; /* warnings and errors */
    EVP_MD_CTX *md;
    uint8_t *buf;
};

static void found(void *arg, const struct blob_check_finding *f)
{
    struct look *l = arg;

    l->said += f->severity != BLOB_CHECK_NOTE;
    if (f->severity != BLOB_CHECK_NOTE)
        print_message("%s: %s: %s at %lu: %s\n", l->img.name, blob_check_severity_name(f->severity),
                      f->structure, f->offset, f->text);
}

static void blob_seen(void *arg, const struct blob_check_blob *b)
{
    struct look *l = arg;
    struct seen *s = &l->blob[l->nblobs];

    if (l->nblobs == BLOBS_MAX)
        return;
    l->nblobs++;
    *s = (struct seen){b->id,      b->parent,  b->clusters, b->allocated,
                       b->invalid, b->data_ro, b->nclones};
    snprintf(s->name, sizeof(s->name), "%s", b->name);
    snprintf(s->uuid, sizeof(s->uuid), "%s", b->uuid);
}

static int hash_blob(struct rt_task *t, struct blob_raw *raw, struct look *l, struct seen *s)
{
    static const uint8_t zeroes[65536];
    uint32_t bytes = raw->super.cluster_bytes;
    struct blob_raw_chain *c = calloc(1, sizeof(*c));
    unsigned char sum[32];
    int rc;

    if (c == NULL)
        return -ENOMEM;
    rc = blob_raw_chain_load(t, raw, s->id, c);
    EVP_DigestInit_ex(l->md, NULL, NULL);
    for (uint64_t i = 0; rc >= 0 && i < s->clusters; i++) {
        rc = blob_raw_chain_read(t, raw, c, i, l->buf);
        if (rc == 1)
            EVP_DigestUpdate(l->md, l->buf, bytes);
        for (uint32_t at = 0; rc == 0 && at < bytes; at += (uint32_t)sizeof(zeroes))
            EVP_DigestUpdate(l->md, zeroes, MIN(bytes, sizeof(zeroes)));
    }
    EVP_DigestFinal_ex(l->md, sum, NULL);
    for (unsigned i = 0; i < 32; i++)
        snprintf(s->sha256 + 2 * (size_t)i, 3, "%02x", sum[i]);
    blob_raw_chain_fini(c);
    free(c);
    return rc < 0 ? rc : 0;
}

static int look_at(struct rt_task *t, void *arg)
{
    struct look *l = arg;
    struct blob_check_opts opts = {.found = found, .blob = blob_seen, .arg = l};
    struct blob_raw raw;
    struct blk_chan *chan;
    struct blk_dev *dev;
    int rc;

    rc = image_open(t, &l->img, &dev, &chan);
    if (rc < 0)
        return rc;
    rc = blob_check(t, chan, &opts, &l->rep);
    if (rc == 0)
        rc = blob_raw_init(t, chan, &raw);
    if (rc == 0) {
        for (unsigned i = 0; i < l->nblobs && rc == 0; i++)
            rc = hash_blob(t, &raw, l, &l->blob[i]);
        blob_raw_fini(&raw);
    }
    blk_chan_put(t, chan);
    blk_close(t, dev);
    return rc;
}

static struct look *look_new(const char *name)
{
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = MIB};
    struct look *l = calloc(1, sizeof(*l));
    struct err why = {""};

    assert_non_null(l);
    assert_int_equal(image_load(dir, name, &l->img), 0);
    l->md = EVP_MD_CTX_new();
    l->buf = aligned_alloc(4096, MIB);
    assert_non_null(l->md);
    assert_non_null(l->buf);
    assert_int_equal(EVP_DigestInit_ex(l->md, EVP_sha256(), NULL), 1);
    assert_int_equal(rt_run(&cfg, look_at, l, &why), 0);
    return l;
}

static void look_free(struct look *l)
{
    EVP_MD_CTX_free(l->md);
    image_free(&l->img);
    free(l->buf);
    free(l);
}

static const struct seen *by_name(const struct look *l, const char *name)
{
    for (unsigned i = 0; i < l->nblobs; i++) {
        if (l->blob[i].id != l->rep.super.super_blob && strcmp(l->blob[i].name, name) == 0)
            return &l->blob[i];
    }
    return NULL;
}

static const struct seen *by_id(const struct look *l, uint64_t id)
{
    for (unsigned i = 0; i < l->nblobs; i++) {
        if (l->blob[i].id == id)
            return &l->blob[i];
    }
    return NULL;
}

static uint64_t num(json_t *obj, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(obj, key));
}

static bool flag(json_t *obj, const char *key)
{
    return json_is_true(json_object_get(obj, key));
}

static void compare_lvol(const struct look *l, json_t *want)
{
    const char *alias = json_string_value(json_object_get(want, "alias"));
    const char *base = json_string_value(json_object_get(want, "base_snapshot"));
    const struct seen *s = by_name(l, strchr(alias, '/') + 1);

    assert_non_null(s);
    assert_string_equal(s->uuid, json_string_value(json_object_get(want, "uuid")));
    assert_int_equal(s->clusters * l->rep.super.cluster_bytes, num(want, "size_bytes"));
    assert_int_equal(s->allocated, num(want, "allocated_clusters"));
    assert_int_equal((s->invalid & BLOB_RAW_THIN) != 0, flag(want, "thin"));
    assert_int_equal(s->nclones > 0, flag(want, "snapshot"));
    assert_int_equal(s->parent != UINT64_MAX, flag(want, "clone"));
    if (base != NULL) {
        assert_non_null(by_id(l, s->parent));
        assert_string_equal(by_id(l, s->parent)->name, base);
    }
    assert_int_equal(s->nclones, json_array_size(json_object_get(want, "clones")));
    assert_string_equal(s->sha256, json_string_value(json_object_get(want, "sha256")));
}

static void lvols_test(void **state)
{
    const char *name = *state;
    json_t *image = json_object_get(manifest, name), *lvs = json_object_get(image, "lvstore");
    json_t *lvols = json_object_get(image, "lvols"), *one;
    struct look *l = look_new(name);
    const struct seen *super;
    size_t i;

    assert_int_equal(l->rep.errors, 0);
    assert_int_equal(l->said, 0);
    assert_int_equal(l->rep.clean, strncmp(name, "killed", 6) != 0);
    assert_int_equal(l->rep.free_clusters, num(lvs, "free_clusters"));
    assert_int_equal(l->rep.clusters - l->rep.reserved_clusters, num(lvs, "total_data_clusters"));
    assert_int_equal(l->rep.super.cluster_bytes, num(lvs, "cluster_size"));
    assert_int_equal(l->rep.super.io_unit_bytes, num(lvs, "block_size"));
    assert_int_equal(l->img.block_bytes, num(image, "block_size"));
    assert_int_equal(l->nblobs, json_array_size(lvols) + 1);
    super = by_id(l, l->rep.super.super_blob);
    assert_non_null(super);
    assert_string_equal(super->name, json_string_value(json_object_get(lvs, "name")));
    assert_string_equal(super->uuid, json_string_value(json_object_get(lvs, "uuid")));
    json_array_foreach(lvols, i, one) compare_lvol(l, one);
    look_free(l);
}

/* xattrs.img has no volumes; its README says what is in it. */
static void xattrs_test(void **state)
{
    static const uint64_t ids[] = {0, 2, 4, 6}, clusters[] = {3, 5, 1, 2};
    struct look *l = look_new("xattrs");

    (void)state;
    assert_int_equal(l->said, 0);
    assert_true(l->rep.clean);
    assert_int_equal(l->rep.free_clusters, 52);
    assert_int_equal(l->rep.super.super_blob, 0x100000002);
    assert_int_equal(l->rep.super.md_start, 4);
    assert_int_equal(l->rep.super.md_len, 64);
    assert_int_equal(l->nblobs, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(l->blob[i].id, 0x100000000 + ids[i]);
        assert_int_equal(l->blob[i].clusters, clusters[i]);
    }
    look_free(l);
}

/* --- xattrs by the raw reader ----------------------------------------------------------------- */

static bool attr_is(const struct blob_raw_blob *b, const char *name, const char *want)
{
    const struct blob_raw_attr *a = blob_raw_attr_find(b, false, name);

    return a != NULL && a->value.len == strlen(want) + 1 &&
           strcmp((const char *)a->value.ptr, want) == 0;
}

/* "vN-" repeated and cut at 254 characters, and a NUL. */
static bool attr_repeats(const struct blob_raw_blob *b, const char *name, const char *word)
{
    const struct blob_raw_attr *a = blob_raw_attr_find(b, false, name);
    size_t len = strlen(word);

    if (a == NULL || a->value.len != 255 || a->value.ptr[254] != '\0')
        return false;
    for (size_t i = 0; i < 254; i++) {
        if (a->value.ptr[i] != (uint8_t)word[i % len])
            return false;
    }
    return true;
}

static int read_attrs(struct rt_task *t, struct blob_raw *raw)
{
    struct blob_raw_blob *b;
    bool ok;
    int rc;

    rc = blob_raw_blob(t, raw, 0x100000000, &b);
    if (rc < 0)
        return rc;
    ok = b->nattrs == 2 && attr_is(b, "colour", "blue") && attr_is(b, "greeting", "hello world");
    blob_raw_blob_free(b);
    rc = blob_raw_blob(t, raw, 0x100000002, &b);
    if (rc < 0)
        return rc;
    ok = ok && b->nattrs == 1 && attr_repeats(b, "long", "x");
    blob_raw_blob_free(b);
    rc = blob_raw_blob(t, raw, 0x100000004, &b);
    if (rc < 0)
        return rc;
    ok = ok && b->nattrs == 5 && attr_repeats(b, "key1", "v1-") && attr_repeats(b, "key2", "v2-") &&
         attr_repeats(b, "key4", "v4-") && attr_repeats(b, "key5", "v5-") &&
         attr_repeats(b, "key6", "v6-");
    blob_raw_blob_free(b);
    rc = blob_raw_blob(t, raw, 0x100000001, &b);
    return !ok ? -EINVAL : rc == -ENOENT ? 0 : -EEXIST;
}

static int attrs_task(struct rt_task *t, void *arg)
{
    struct blk_chan *chan;
    struct blk_dev *dev;
    struct blob_raw raw;
    int rc;

    rc = image_open(t, arg, &dev, &chan);
    if (rc < 0)
        return rc;
    rc = blob_raw_init(t, chan, &raw);
    if (rc == 0)
        rc = read_attrs(t, &raw);
    blob_raw_fini(&raw);
    blk_chan_put(t, chan);
    blk_close(t, dev);
    return rc;
}

static void attrs_test(void **state)
{
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = MIB};
    struct err why = {""};
    struct image img;

    (void)state;
    assert_int_equal(image_load(dir, "xattrs", &img), 0);
    assert_int_equal(rt_run(&cfg, attrs_task, &img, &why), 0);
    image_free(&img);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(lvols_test, (void *)(uintptr_t) "clean"),
        cmocka_unit_test_prestate(lvols_test, (void *)(uintptr_t) "snapshots"),
        cmocka_unit_test_prestate(lvols_test, (void *)(uintptr_t) "killed-metadata"),
        cmocka_unit_test_prestate(lvols_test, (void *)(uintptr_t) "killed-writing"),
        cmocka_unit_test_prestate(lvols_test, (void *)(uintptr_t) "fragmented"),
        cmocka_unit_test(xattrs_test),
        cmocka_unit_test(attrs_test),
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
