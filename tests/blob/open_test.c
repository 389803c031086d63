/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores that SPDK wrote, opened: the same blobs with the same content, whether the store was
 * closed or killed; and after changes of ours the old blobs are as they were, and the checker has
 * nothing to say.
 */
#include "images.h"

#include "blob/blob.h"
#include "blob/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/evp.h>

#define BLOBS_MAX 32
#define STEP 65536u

static const char *dir;
static json_t *manifest;
static uint8_t buf[STEP];

struct seen {
    struct blob_info info;
    char name[65], uuid[65];
    char sha256[65];
};
struct look {
    struct image img;
    bool change;
    struct blob_store_info info;
    struct seen blob[BLOBS_MAX];
    unsigned nblobs;
    struct seen again[BLOBS_MAX];
    unsigned nagain;
};

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)

static void text_of(const struct blob *b, const char *name, char *out, size_t max)
{
    const void *value;
    uint16_t len;

    out[0] = '\0';
    if (blob_get_xattr(b, name, &value, &len) == 0)
        snprintf(out, max, "%.*s", (int)len, (const char *)value);
}

struct hashing {
    EVP_MD_CTX *md;
    int rc;
};

static int hash_step(void *arg)
{
    struct hashing *h = arg;

    h->rc = EVP_DigestUpdate(h->md, buf, STEP);
    return 0;
}

static int hash_end(void *arg)
{
    struct hashing *h = arg;
    static const char digits[] = "0123456789abcdef";
    unsigned char sum[32];

    EVP_DigestFinal_ex(h->md, sum, NULL);
    for (unsigned i = 0; i < 32; i++) {
        buf[2 * i] = (uint8_t)digits[sum[i] >> 4];
        buf[2 * i + 1] = (uint8_t)digits[sum[i] & 15];
    }
    return 0;
}

/* OpenSSL wants more stack than a task has. */
static int hash_begin(void *arg)
{
    struct hashing *h = arg;

    h->md = EVP_MD_CTX_new();
    return EVP_DigestInit_ex(h->md, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}

static int hash_blob(struct rt_task *t, struct blob_chan *chan, struct blob *b, struct seen *s)
{
    struct hashing h = {0};
    int rc = rt_offload(t, hash_begin, &h);

    for (uint64_t at = 0; at < s->info.len_bytes && rc == 0; at += STEP) {
        rc = blob_read(t, chan, b, buf, at, MIN(STEP, s->info.len_bytes - at));
        if (rc == 0)
            rt_offload(t, hash_step, &h);
    }
    rt_offload(t, hash_end, &h);
    memcpy(s->sha256, buf, 64);
    EVP_MD_CTX_free(h.md);
    return rc;
}

static int see_blobs(struct rt_task *t, struct blob_store *bs, struct seen *out, unsigned *out_n)
{
    struct blob_chan *chan;
    uint64_t id = 0;

    CHECK(blob_chan_get(t, bs, &chan) == 0);
    for (; blob_next(t, bs, id, &id) == 0; id++) {
        struct seen *s = &out[*out_n];
        struct blob *b;

        CHECK(*out_n < BLOBS_MAX);
        CHECK(blob_open(t, bs, id, &b) == 0);
        blob_info(b, &s->info);
        text_of(b, "name", s->name, sizeof(s->name));
        text_of(b, "uuid", s->uuid, sizeof(s->uuid));
        CHECK(hash_blob(t, chan, b, s) == 0);
        blob_close(t, b);
        ++*out_n;
    }
    blob_chan_put(t, chan);
    return 0;
}

/* The first blob that may be written: a snapshot of it, a clone, a write, and all undone. */
static int change(struct rt_task *t, struct look *l, struct blob_store *bs)
{
    uint64_t snap, clone, plain;
    struct blob_create_opts opts = {.clusters = 3};
    struct blob_chan *chan;
    struct blob *b, *c;
    unsigned i = 0;

    while (i < l->nblobs && (l->blob[i].info.read_only || l->blob[i].info.clusters == 0))
        i++;
    CHECK(i < l->nblobs);
    CHECK(blob_chan_get(t, bs, &chan) == 0);
    CHECK(blob_open(t, bs, l->blob[i].info.id, &b) == 0);
    CHECK(blob_snapshot(t, b, NULL, 0, &snap) == 0);
    CHECK(blob_clone(t, bs, snap, NULL, 0, &clone) == 0);
    CHECK(blob_open(t, bs, clone, &c) == 0);
    memset(buf, 'c', sizeof(buf));
    CHECK(blob_write(t, chan, c, buf, 0, 8192, 0) == 0);
    CHECK(blob_delete(t, bs, snap) == -EBUSY);
    blob_close(t, c);
    CHECK(blob_delete(t, bs, clone) == 0);
    CHECK(blob_delete(t, bs, snap) == 0);
    CHECK(blob_create(t, bs, &opts, &plain) == 0);
    CHECK(blob_delete(t, bs, plain) == 0);
    blob_close(t, b);
    blob_chan_put(t, chan);
    return 0;
}

static int judge(struct rt_task *t, struct blk_chan *chan)
{
    struct blob_check_opts opts = {0};
    struct blob_check_report rep;
    int rc = blob_check(t, chan, &opts, &rep);

    return rc < 0 ? rc : (int)(rep.errors + rep.warnings);
}

static int look(struct rt_task *t, void *arg)
{
    struct look *l = arg;
    struct err why = {""};
    struct blob_store *bs;
    struct blk_chan *chan;
    struct blk_dev *dev;

    CHECK(image_open(t, &l->img, &dev, &chan) == 0);
    CHECK(blob_store_open(t, blk_uri(dev), NULL, 0, &bs, &why) == 0);
    blob_store_info(bs, &l->info);
    CHECK(see_blobs(t, bs, l->blob, &l->nblobs) == 0);
    if (l->change)
        CHECK(change(t, l, bs) == 0);
    blob_store_close(t, bs);
    CHECK(judge(t, chan) == 0);
    CHECK(blob_store_open(t, blk_uri(dev), NULL, BLOB_OPEN_READ_ONLY, &bs, &why) == 0);
    CHECK(see_blobs(t, bs, l->again, &l->nagain) == 0);
    blob_store_close(t, bs);
    blk_chan_put(t, chan);
    blk_close(t, dev);
    return 0;
}

static struct look *look_new(const char *name, bool change_it)
{
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = MIB};
    struct look *l = calloc(1, sizeof(*l));
    struct err why = {""};

    assert_non_null(l);
    assert_int_equal(image_load(dir, name, &l->img), 0);
    l->change = change_it;
    assert_int_equal(rt_run(&cfg, look, l, &why), 0);
    return l;
}

static void look_free(struct look *l)
{
    image_free(&l->img);
    free(l);
}

static const struct seen *find(const struct look *l, const char *name, uint64_t id)
{
    for (unsigned i = 0; i < l->nblobs; i++) {
        const struct seen *s = &l->blob[i];

        if (name != NULL ? s->info.id != l->info.super_blob && strcmp(s->name, name) == 0
                         : s->info.id == id)
            return s;
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
    const struct seen *s = find(l, strchr(alias, '/') + 1, 0);

    assert_non_null(s);
    assert_string_equal(s->uuid, json_string_value(json_object_get(want, "uuid")));
    assert_string_equal(s->sha256, json_string_value(json_object_get(want, "sha256")));
    assert_int_equal(s->info.len_bytes, num(want, "size_bytes"));
    assert_int_equal(s->info.allocated_clusters, num(want, "allocated_clusters"));
    assert_int_equal(s->info.thin, flag(want, "thin"));
    assert_int_equal(s->info.snapshot, flag(want, "snapshot"));
    assert_int_equal(s->info.clone, flag(want, "clone"));
    assert_int_equal(s->info.nclones, json_array_size(json_object_get(want, "clones")));
    if (base != NULL)
        assert_string_equal(find(l, NULL, s->info.parent)->name, base);
}

static void stays(const struct look *l)
{
    assert_int_equal(l->nblobs, l->nagain);
    for (unsigned i = 0; i < l->nblobs; i++) {
        const struct seen *a = &l->blob[i], *b = &l->again[i];

        assert_int_equal(a->info.id, b->info.id);
        assert_string_equal(a->name, b->name);
        assert_string_equal(a->sha256, b->sha256);
        assert_int_equal(a->info.parent, b->info.parent);
        assert_int_equal(a->info.clusters, b->info.clusters);
    }
}

static void lvols_test(void **state)
{
    const char *name = *state;
    json_t *image = json_object_get(manifest, name), *lvs = json_object_get(image, "lvstore");
    json_t *lvols = json_object_get(image, "lvols"), *one;
    struct look *l = look_new(name, false);
    size_t i;

    assert_int_equal(l->info.was_clean, strncmp(name, "killed", 6) != 0);
    assert_int_equal(l->info.unreadable, 0);
    assert_int_equal(l->info.clusters, num(lvs, "total_data_clusters"));
    assert_int_equal(l->info.free_clusters, num(lvs, "free_clusters"));
    assert_int_equal(l->info.max_size_bytes, num(lvs, "max_growable_size"));
    assert_int_equal(l->info.cluster_bytes, num(lvs, "cluster_size"));
    assert_memory_equal(l->info.bstype, "LVOLSTORE\0\0\0\0\0\0", 16);
    assert_int_equal(l->nblobs, json_array_size(lvols) + 1);
    json_array_foreach(lvols, i, one) compare_lvol(l, one);
    stays(l);
    look_free(l);
}

static void changed_test(void **state)
{
    struct look *l = look_new(*state, true);

    assert_int_equal(l->info.unreadable, 0);
    stays(l);
    look_free(l);
}

static void xattrs_test(void **state)
{
    struct look *l = look_new("xattrs", false);

    (void)state;
    assert_true(l->info.was_clean);
    assert_int_equal(l->info.free_clusters, 52);
    assert_int_equal(l->info.super_blob, 0x100000002);
    assert_int_equal(l->nblobs, 4);
    assert_int_equal(find(l, NULL, 0x100000000)->info.clusters, 3);
    assert_int_equal(find(l, NULL, 0x100000002)->info.clusters, 5);
    stays(l);
    look_free(l);
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
        cmocka_unit_test_prestate(changed_test, (void *)(uintptr_t) "clean"),
        cmocka_unit_test_prestate(changed_test, (void *)(uintptr_t) "snapshots"),
        cmocka_unit_test_prestate(changed_test, (void *)(uintptr_t) "killed-metadata"),
        cmocka_unit_test_prestate(changed_test, (void *)(uintptr_t) "killed-writing"),
        cmocka_unit_test_prestate(changed_test, (void *)(uintptr_t) "fragmented"),
        cmocka_unit_test_prestate(changed_test, (void *)(uintptr_t) "xattrs"),
    };
    int rc;

    if (argc != 2)
        return 2;
    dir = argv[1];
    manifest = image_manifest(dir);
    if (manifest == NULL)
        return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(manifest);
    return rc;
}
