/* SPDX-License-Identifier: Apache-2.0 */
/* Stores and blobs: what is made is there again, whichever way the store was left. */
#include "blob/blob_test.h"

#define URI "mem:?size=64M&name=bs"

static uint8_t buf[4 * TEST_CLUSTER], back[4 * TEST_CLUSTER];

static void fill(uint8_t *p, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(seed + i / 4096 * 7 + i);
}

static int makes_and_finds(struct rt_task *t, void *arg)
{
    struct rig r = {.uri = URI};
    struct blob_create_opts thin = {.clusters = 100, .thin = true};
    struct blob_store_info before, info;
    struct blob_info bi;
    struct blob *b;
    uint64_t id, next;

    CHECK(rig_open(t, &r, NULL) == 0);
    blob_store_info(r.bs, &before);
    CHECK(before.clusters == 959);
    CHECK(before.free_clusters == 959);
    CHECK(blob_create(t, r.bs, &thin, &id) == 0);
    CHECK(id == 0x100000000);
    CHECK(blob_open(t, r.bs, id, &b) == 0);
    CHECK(blob_allocate(t, b, 10, 20) == 0);
    blob_info(b, &bi);
    CHECK(bi.allocated_clusters == 20);
    fill(buf, sizeof(buf), 1);
    CHECK(blob_write(t, r.chan, b, buf, 10 * TEST_CLUSTER, sizeof(buf), 0) == 0);
    CHECK(blob_flush(t, r.chan, b) == 0);
    CHECK(blob_read(t, r.chan, b, back, 10 * TEST_CLUSTER, sizeof(buf)) == 0);
    CHECK(memcmp(buf, back, sizeof(buf)) == 0);
    CHECK(blob_release(t, b, 12, 100) == -ERANGE);
    CHECK(blob_release(t, b, 14, 80) == 0);
    CHECK(blob_set_xattr(t, b, "colour", "blue", 4) == 0);
    blob_close(t, b);
    rig_store_close(t, &r);
    CHECK(rig_check(t, &r) == 0);

    CHECK(rig_store(t, &r, 0) == 0);
    blob_store_info(r.bs, &info);
    CHECK(info.was_clean);
    CHECK(info.free_clusters == 955);
    CHECK(blob_next(t, r.bs, 0, &next) == 0);
    CHECK(next == id);
    CHECK(blob_open(t, r.bs, id, &b) == 0);
    CHECK(blob_read(t, r.chan, b, back, 10 * TEST_CLUSTER, sizeof(buf)) == 0);
    CHECK(memcmp(buf, back, sizeof(buf)) == 0);
    blob_close(t, b);
    CHECK(blob_delete(t, r.bs, id) == 0);
    blob_store_info(r.bs, &info);
    CHECK(info.free_clusters == before.free_clusters);
    CHECK(info.free_md_pages == before.free_md_pages);
    rig_store_close(t, &r);
    CHECK(rig_check(t, &r) == 0);
    rig_close(t, &r);
    return 0;
}
TEST(makes_and_finds, 1)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(makes_and_finds_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
