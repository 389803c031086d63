/* SPDX-License-Identifier: Apache-2.0 */
#include "blob/lvol/lvol_test.h"

#include <string.h>
#include <unistd.h>

static unsigned count(struct rt_task *t, struct lvs *lvs)
{
    unsigned n = 0;
    uint64_t id;

    for (uint64_t from = 0; lvol_next(t, lvs, from, &id) == 0; from = id + 1)
        n++;
    return n;
}

/* --- stores ----------------------------------------------------------------------------------- */

static int volumes(struct rt_task *t, void *arg)
{
    static const char long_name[] =
        "0123456789012345678901234567890123456789012345678901234567890123";
    struct lvol_info info;
    struct blk_dev *dev;
    struct lvs lvs;
    struct err why = {""};
    uint64_t a, b, id;

    CHECK(mem_open(t, MEM "v", LVS_OPEN_FORMAT, &dev, &lvs) == 0);
    CHECK(lvs.formatted);
    CHECK(strcmp(lvs.name, "lvs") == 0);
    CHECK(strlen(lvs.uuid) == LVOL_UUID_TEXT - 1);
    CHECK(count(t, &lvs) == 0);
    CHECK(add(t, &lvs, "a", MIB, true, &a) == 0);
    CHECK(add(t, &lvs, "b/c", MIB + 1, false, &b) == 0);
    CHECK(add(t, &lvs, "a", MIB, true, &id) == -EEXIST);
    CHECK(add(t, &lvs, "", MIB, true, &id) == -EINVAL);
    CHECK(add(t, &lvs, long_name, MIB, true, &id) == -EINVAL);
    CHECK(add(t, &lvs, "new\nline", MIB, true, &id) == -EINVAL);
    CHECK(add(t, &lvs, "big", GIB, false, &id) == -ENOSPC);
    CHECK(add(t, &lvs, long_name + 1, MIB, true, &id) == 0);
    CHECK(lvol_delete(t, &lvs, id, &why) == 0);
    CHECK(count(t, &lvs) == 2);

    CHECK(lvol_info(t, &lvs, a, &info) == 0);
    CHECK(strcmp(info.name, "a") == 0);
    CHECK(info.blob.thin);
    CHECK(info.blob.len_bytes == MIB);
    CHECK(lvol_find(t, &lvs, info.uuid, &id) == 0);
    CHECK(id == a);
    CHECK(lvol_info(t, &lvs, b, &info) == 0);
    CHECK(!info.blob.thin);
    CHECK(info.blob.len_bytes == MIB + 64 * KIB);
    CHECK(info.blob.allocated_clusters == 17);
    CHECK(lvol_lookup(t, &lvs, "lvs/b/c", &id, &why) == 0);
    CHECK(id == b);
    CHECK(lvol_lookup(t, &lvs, "b/c", &id, &why) == 0);
    CHECK(lvol_lookup(t, &lvs, "other/a", &id, &why) == -ENOENT);
    CHECK(strstr(why.text, " a b/c") != NULL);
    CHECK(lvol_lookup(t, &lvs, "", &id, &why) == -EINVAL);
    CHECK(lvol_lookup(t, &lvs, NULL, &id, &why) == -EINVAL);

    CHECK(lvol_rename(t, &lvs, a, "b/c", &why) == -EEXIST);
    CHECK(lvol_rename(t, &lvs, a, "d", &why) == 0);
    CHECK(lvol_find(t, &lvs, "a", &id) == -ENOENT);
    CHECK(lvol_find(t, &lvs, "d", &id) == 0);
    CHECK(lvol_resize(t, &lvs, a, 3 * MIB, &why) == 0);
    CHECK(lvol_resize(t, &lvs, b, GIB, &why) == -ENOSPC);
    CHECK(strstr(why.text, "free") != NULL);
    CHECK(lvol_set_read_only(t, &lvs, b, &why) == 0);
    lvs_close(t, &lvs);

    CHECK(lvs_open(t, MEM "v", LVS_OPEN_FORMAT, NULL, &lvs, &why) == 0);
    CHECK(!lvs.formatted);
    CHECK(count(t, &lvs) == 2);
    CHECK(lvol_info(t, &lvs, a, &info) == 0);
    CHECK(strcmp(info.name, "d") == 0);
    CHECK(info.blob.len_bytes == 3 * MIB);
    CHECK(lvol_info(t, &lvs, b, &info) == 0);
    CHECK(info.blob.read_only);
    mem_close(t, dev, &lvs);
    return 0;
}
TEST(volumes, 1)

static int devices_with_content(struct rt_task *t, void *arg)
{
    static const uint64_t lbas[] = {0, 255, 2048, 131071};
    uint8_t block[512] = {1}, zero[512] = {0};
    struct blk_dev *dev;
    struct blk_chan *chan;
    struct lvs lvs;
    struct err why = {""};

    CHECK(dev_open(t, MEM "w", &dev, &chan) == 0);
    CHECK(lvs_open(t, MEM "w", 0, NULL, &lvs, &why) == -ENODATA);
    for (size_t i = 0; i < ARRAY_LEN(lbas); i++) {
        int want = lbas[i] == 2048 ? 1 : 0; /* far from both ends */

        CHECK(blk_write(t, chan, block, lbas[i], 1, 0) == 0);
        CHECK(lvs_probe_empty(t, dev) == want);
        if (want == 0) {
            CHECK(lvs_open(t, MEM "w", LVS_OPEN_FORMAT, NULL, &lvs, &why) == -EEXIST);
            CHECK(strstr(why.text, "--force") != NULL);
        }
        CHECK(blk_write(t, chan, zero, lbas[i], 1, 0) == 0);
    }
    CHECK(lvs_open(t, MEM "w", LVS_OPEN_FORMAT | LVS_OPEN_READ_ONLY, NULL, &lvs, &why) == -EINVAL);
    CHECK(lvs_open(t, MEM "w", LVS_OPEN_FORMAT, NULL, &lvs, &why) == 0);
    CHECK(lvs.formatted);
    lvs_close(t, &lvs);
    dev_close(t, dev, chan);
    return 0;
}
TEST(devices_with_content, 1)

/* What a crash leaves in the middle of formatting. */
static int half_formatted(struct rt_task *t, void *arg)
{
    struct blob_format_opts opts = {.bstype = "LVOLSTORE"};
    struct blob_create_opts empty = {0}, one = {.clusters = 1};
    struct blob_store *bs;
    struct blk_dev *dev;
    struct lvs lvs;
    struct err why = {""};
    uint64_t id;

    CHECK(blk_open(t, MEM "h", &dev, &why) == 0);
    CHECK(blob_format(t, dev, &opts, &why) == 0);
    CHECK(lvs_open(t, MEM "h", 0, NULL, &lvs, &why) == -EBADMSG);
    CHECK(strstr(why.text, "super blob") != NULL);
    CHECK(lvs_open(t, MEM "h", LVS_OPEN_FORMAT, NULL, &lvs, &why) == 0);
    CHECK(strcmp(lvs.name, "lvs") == 0);
    lvs_close(t, &lvs);
    CHECK(lvs_open(t, MEM "h", 0, NULL, &lvs, &why) == 0);
    lvs_close(t, &lvs);

    /* The super blob lacks its names, or a volume does. */
    CHECK(blob_format(t, dev, &opts, &why) == 0);
    CHECK(blob_store_open_dev(t, dev, NULL, 0, &bs, &why) == 0);
    CHECK(blob_create(t, bs, &empty, &id) == 0);
    CHECK(blob_store_set_super(t, bs, id) == 0);
    blob_store_close(t, bs);
    CHECK(lvs_open(t, MEM "h", 0, NULL, &lvs, &why) == -EBADMSG);
    CHECK(strstr(why.text, "uuid") != NULL);
    CHECK(lvs_format(t, dev, NULL, &why) == 0);
    CHECK(blob_store_open_dev(t, dev, NULL, 0, &bs, &why) == 0);
    CHECK(blob_create(t, bs, &one, &id) == 0);
    blob_store_close(t, bs);
    CHECK(lvs_open(t, MEM "h", 0, NULL, &lvs, &why) == -EBADMSG);
    CHECK(strstr(why.text, "no valid name") != NULL);

    /* A blobstore of another kind. */
    memset(opts.bstype, 0, sizeof(opts.bstype));
    CHECK(blob_format(t, dev, &opts, &why) == 0);
    CHECK(lvs_open(t, MEM "h", LVS_OPEN_FORMAT, NULL, &lvs, &why) == -EINVAL);
    blk_close(t, dev);
    return 0;
}
TEST(half_formatted, 1)

/* Formatting ends at the n-th request, for every n; the next one completes it. */
static int format_cut_off(struct rt_task *t, void *arg)
{
    struct blk_dev *dev;
    struct lvs lvs;
    struct err why = {""};
    char uri[256];
    uint64_t id;
    int rc = -EIO;

    for (unsigned n = 1; rc < 0; n++) {
        CHECK(n < 1000);
        CHECK(blk_open(t, MEM "cut", &dev, &why) == 0);
        snprintf(uri, sizeof(uri), "%s%u", "fault:?base=mem:%3Fname=cut&fail_from=", n);
        rc = lvs_open(t, uri, LVS_OPEN_FORMAT, NULL, &lvs, &why);
        CHECK(rc == 0 || rc == -EIO);
        if (rc == 0)
            lvs_close(t, &lvs);
        CHECK(lvs_open(t, MEM "cut", LVS_OPEN_FORMAT, NULL, &lvs, &why) == 0);
        CHECK(count(t, &lvs) == 0);
        CHECK(add(t, &lvs, "a", MIB, false, &id) == 0);
        lvs_close(t, &lvs);
        CHECK(lvs_open(t, MEM "cut", 0, NULL, &lvs, &why) == 0);
        CHECK(count(t, &lvs) == 1);
        mem_close(t, dev, &lvs);
    }
    return 0;
}
TEST(format_cut_off, 1)

struct racer {
    struct lvs *lvs;
    int rc;
    struct rt_req done;
};

static int race_one(struct rt_task *t, void *arg)
{
    struct racer *r = arg;
    uint64_t id;

    r->rc = add(t, r->lvs, "same", MIB, true, &id);
    return 0;
}

static int race_there(struct rt_task *t, void *arg)
{
    return rt_on(t, rt_reactor(1), race_one, arg);
}

static int one_name_once(struct rt_task *t, void *arg)
{
    struct blk_dev *dev;
    struct lvs lvs;
    struct racer r[8];
    unsigned won = 0;

    CHECK(mem_open(t, MEM "r", LVS_OPEN_FORMAT, &dev, &lvs) == 0);
    for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
        r[i] = (struct racer){.lvs = &lvs};
        rt_req_init_task(&r[i].done, t);
        CHECK(rt_task_start("race", i % 2 ? race_there : race_one, &r[i], &r[i].done, NULL) == 0);
    }
    for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
        rt_wait(t, &r[i].done);
        won += r[i].rc == 0;
        CHECK(r[i].rc == 0 || r[i].rc == -EEXIST);
    }
    CHECK(won == 1);
    CHECK(count(t, &lvs) == 1);
    mem_close(t, dev, &lvs);
    return 0;
}
TEST(one_name_once, 2)

/* --- the driver ------------------------------------------------------------------------------- */

static int uris(struct rt_task *t, void *arg)
{
    static const struct {
        const char *uri;
        int rc;
        const char *text;
    } bad[] = {
        {"lvol:", -EINVAL, "bdev="},
        {"lvol:#a", -EINVAL, "bdev="},
        {"lvol:/x?bdev=mem:#a", -EINVAL, "bdev="},
        {LVOL_MEM "u&size=1M#a", -EINVAL, "bdev="},
        {"lvol:/nosuch/file#a", -ENOENT, "/nosuch/file"},
        {LVOL_MEM "u#a", -ENODATA, ""},
        {LVOL_MEM "u&create=1M&readonly=yes#a", -EINVAL, "contradict"},
        {LVOL_MEM "u&create=1M", -EINVAL, "which volume"},
        {LVOL_MEM "u&create=1M#", -EINVAL, "which volume"},
        {LVOL_MEM "u&create=1G&thin=no#a", -ENOSPC, "free"},
        {LVOL_MEM "u#b", -ENOENT, "no volume 'b'"},
    };
    struct blk_dev *base, *dev;
    struct err why = {""};

    CHECK(blk_open(t, MEM "u", &base, &why) == 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int rc = blk_open(t, bad[i].uri, &dev, &why);

        if (rc != bad[i].rc || strstr(why.text, bad[i].text) == NULL) {
            fprintf(stderr, "%s: %d %s\n", bad[i].uri, rc, why.text);
            return -__LINE__;
        }
    }
    blk_close(t, base);
    return 0;
}
TEST(uris, 1)

static int one_device_by_many_names(struct rt_task *t, void *arg)
{
    char uri[URI_MAX];
    struct blk_dev *base, *a, *b;
    struct blk_chan *chan;
    struct lvs lvs;
    struct lvol_info info;
    struct err why = {""};
    uint64_t id;

    CHECK(mem_open(t, MEM "n", LVS_OPEN_FORMAT, &base, &lvs) == 0);
    CHECK(add(t, &lvs, "a", MIB, true, &id) == 0);
    CHECK(lvol_info(t, &lvs, id, &info) == 0);
    CHECK(dev_open(t, LVOL_MEM "n#a", &a, &chan) == 0);
    CHECK(memcmp(blk_info(a)->uuid, info.uuid_bytes, 16) == 0);
    CHECK(blk_info(a)->nblocks == MIB / 512);
    CHECK(blk_open(t, LVOL_MEM "n#lvs/a", &b, &why) == 0);
    CHECK(a == b);
    blk_close(t, b);
    snprintf(uri, sizeof(uri), "%s%s", LVOL_MEM "n#", info.uuid);
    CHECK(blk_open(t, uri, &b, &why) == 0);
    CHECK(a == b);
    blk_close(t, b);
    CHECK(blk_open(t, LVOL_MEM "n&readonly=yes#a", &b, &why) == -EBUSY);

    CHECK(lvol_delete(t, &lvs, id, &why) == -EBUSY); /* it is in use */
    CHECK(lvol_rename(t, &lvs, id, "z", &why) == 0);
    CHECK(blk_open(t, LVOL_MEM "n#z", &b, &why) == 0);
    CHECK(a == b);
    blk_close(t, b);
    CHECK(blk_open(t, LVOL_MEM "n#a", &b, &why) == -ENOENT);
    dev_close(t, a, chan);
    CHECK(lvol_delete(t, &lvs, id, &why) == 0);
    mem_close(t, base, &lvs);
    return 0;
}
TEST(one_device_by_many_names, 2)

static int volumes_share_a_device(struct rt_task *t, void *arg)
{
    struct blk_dev *base, *a, *b;
    struct blk_chan *ca, *cb;
    struct err why = {""};

    CHECK(blk_open(t, MEM "s", &base, &why) == 0);
    CHECK(dev_open(t, LVOL_MEM "s&create=1M&cluster_size=32K#pool/a", &a, &ca) == 0);
    CHECK(dev_open(t, LVOL_MEM "s&create=1M&thin=no#pool/b", &b, &cb) == 0);
    for (uint64_t lba = 0; lba < 2048; lba += 37) {
        CHECK(fill(t, ca, lba, 0xa1) == 0);
        CHECK(fill(t, cb, lba, 0xb2) == 0);
    }
    for (uint64_t lba = 0; lba < 2048; lba++) {
        CHECK(first_byte(t, ca, lba) == (lba % 37 == 0 ? 0xa1 : 0));
        CHECK(first_byte(t, cb, lba) == (lba % 37 == 0 ? 0xb2 : 0));
    }
    dev_close(t, a, ca);
    dev_close(t, b, cb);
    CHECK(dev_open(t, LVOL_MEM "s&readonly=yes#pool/a", &a, &ca) == 0);
    CHECK(blk_info(a)->caps & BLK_CAP_READ_ONLY);
    CHECK(first_byte(t, ca, 37) == 0xa1);
    CHECK(fill(t, ca, 0, 1) == -EROFS);
    dev_close(t, a, ca);
    blk_close(t, base);
    return 0;
}
TEST(volumes_share_a_device, 1)

struct seen {
    struct blk_watch watch;
    unsigned resized, removed;
    struct rt_cond changed;
};

static void event(struct blk_watch *w, enum blk_event ev)
{
    struct seen *s = container_of(w, struct seen, watch);

    s->resized += ev == BLK_EVENT_RESIZED;
    s->removed += ev == BLK_EVENT_REMOVED;
    rt_cond_wake_all(&s->changed);
}

static int watchers_are_told(struct rt_task *t, void *arg)
{
    struct seen seen = {.watch.fn = event};
    struct blk_dev *base, *dev;
    struct blk_chan *chan;
    struct lvs lvs;
    struct err why = {""};
    uint64_t id;

    CHECK(mem_open(t, MEM "t", LVS_OPEN_FORMAT, &base, &lvs) == 0);
    CHECK(add(t, &lvs, "a", MIB, true, &id) == 0);
    CHECK(dev_open(t, LVOL_MEM "t#a", &dev, &chan) == 0);
    blk_watch_add(dev, &seen.watch);
    CHECK(fill(t, chan, 2048, 1) == -ERANGE);
    CHECK(lvol_resize(t, &lvs, id, 2 * MIB, &why) == 0);
    while (seen.resized == 0)
        CHECK(rt_cond_wait(t, &seen.changed) == 0);
    CHECK(blk_info(dev)->nblocks == 2 * MIB / 512);
    CHECK(fill(t, chan, 2048, 0x11) == 0);
    CHECK(first_byte(t, chan, 2048) == 0x11);
    CHECK(lvol_resize(t, &lvs, id, MIB, &why) == 0);
    CHECK(first_byte(t, chan, 2048) == -ERANGE);
    CHECK(lvol_resize(t, &lvs, id, 2 * MIB, &why) == 0);
    CHECK(first_byte(t, chan, 2048) == 0); /* what was cut off does not come back */
    blk_removed(base);
    while (seen.removed == 0)
        CHECK(rt_cond_wait(t, &seen.changed) == 0);
    CHECK(fill(t, chan, 0, 1) == -ENODEV);
    blk_watch_del(t, dev, &seen.watch);
    dev_close(t, dev, chan);
    mem_close(t, base, &lvs);
    return 0;
}
TEST(watchers_are_told, 2)

/* A store on a volume of another store. */
static int nested(struct rt_task *t, void *arg)
{
    static const char outer[] = LVOL_MEM "x&create=32M#outer";
    static const char inner[] =
        "lvol:?bdev=lvol:%3Fbdev=mem:%253Fsize=64M%2526block_size=512%2526name=x%26create=32M"
        "%23outer&create=1M#in/inner";
    struct blk_dev *base, *dev, *out;
    struct blk_chan *chan;
    struct err why = {""};

    CHECK(blk_open(t, MEM "x", &base, &why) == 0);
    CHECK(dev_open(t, inner, &dev, &chan) == 0);
    CHECK(fill(t, chan, 5, 5) == 0);
    CHECK(first_byte(t, chan, 5) == 5);
    CHECK(blk_open(t, outer, &out, &why) == 0);
    CHECK(blk_claim(out, BLK_CLAIM_SHARED_WRITE, "test", &why) == -EBUSY); /* the store has it */
    blk_close(t, out);
    dev_close(t, dev, chan);
    blk_close(t, base);
    return 0;
}
TEST(nested, 1)

static void file_uris(void **state)
{
    struct lvol_file_opts o = {.path = "/a?b#c%d", .block_bytes = 512, .size_bytes = 4096};
    char uri[64];

    (void)state;
    assert_int_equal(lvol_file_uri(&o, uri, sizeof(uri)), 0);
    assert_string_equal(uri, "file:/a%3fb%23c%25d?block_size=512&size=4096");
    o = (struct lvol_file_opts){.path = "x", .direct = "off", .readonly = true};
    assert_int_equal(lvol_file_uri(&o, uri, sizeof(uri)), 0);
    assert_string_equal(uri, "file:x?direct=off&readonly=yes");
    assert_int_equal(lvol_file_uri(&o, uri, 20), -ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_uris),
        cmocka_unit_test(volumes_test),
        cmocka_unit_test(devices_with_content_test),
        cmocka_unit_test(half_formatted_test),
        cmocka_unit_test(format_cut_off_test),
        cmocka_unit_test(one_name_once_test),
        cmocka_unit_test(uris_test),
        cmocka_unit_test(one_device_by_many_names_test),
        cmocka_unit_test(volumes_share_a_device_test),
        cmocka_unit_test(watchers_are_told_test),
        cmocka_unit_test(nested_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
