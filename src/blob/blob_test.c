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

/* --- stores that are not as ours ------------------------------------------------------------- */

/* An empty store as a foreign hand may have made it: super block only, to be replayed. */
static int make_by_hand(struct rt_task *t, struct rig *r, uint32_t version, uint32_t page_bytes,
                        uint32_t cluster_bytes)
{
    struct blob_super s = {.version = version,
                           .super_blob = BLOB_ID_NONE,
                           .cluster_bytes = cluster_bytes,
                           .md_len = 50,
                           .size_bytes = 64 * MIB,
                           .io_unit_bytes = 4096,
                           .md_page_bytes = page_bytes};
    struct blob_super_disk *d = (struct blob_super_disk *)(void *)buf;
    struct err why;

    CHECK(dev_open(t, r->uri, &r->dev, &r->blk) == 0);
    CHECK(blob_super_layout(&s, &why) == 0);
    if (version < 3)
        s.id_mask_start = s.id_mask_len = 0;
    memset(d, 0, sizeof(*d));
    blob_super_encode(&s, d);
    CHECK(blk_write(t, r->blk, d, 0, 1, 0) == 0);
    return rig_store(t, r, 0);
}

struct foreign {
    uint32_t version, page_bytes, cluster_bytes;
    bool rle;
};

static int opens_foreign(struct rt_task *t, void *arg)
{
    const struct foreign *f = arg;
    struct rig r = {.uri = URI};
    struct blob_create_opts opts = {.clusters = 600, .thin = true, .extent_rle = f->rle};
    struct blob *b;
    uint64_t id;

    CHECK(make_by_hand(t, &r, f->version, f->page_bytes, f->cluster_bytes) == 0);
    CHECK(blob_create(t, r.bs, &opts, &id) == 0);
    CHECK(blob_open(t, r.bs, id, &b) == 0);
    fill(buf, sizeof(buf), 3);
    CHECK(blob_write(t, r.chan, b, buf, 511ull * f->cluster_bytes, sizeof(buf), 0) == 0);
    memset(back, 'x', 3000);
    CHECK(blob_set_xattr(t, b, "one", back, 3000) == 0);
    CHECK(blob_set_xattr(t, b, "two", back, 3000) == 0); /* a chain of two pages */
    CHECK(b->nchain == 1);
    blob_close(t, b);
    rig_store_close(t, &r);
    CHECK(rig_check(t, &r) == 0);
    CHECK(rig_store(t, &r, 0) == 0);
    CHECK(r.bs->was_clean == (f->version == 3));
    CHECK(blob_open(t, r.bs, id, &b) == 0);
    CHECK(blob_read(t, r.chan, b, back, 511ull * f->cluster_bytes, sizeof(back)) == 0);
    CHECK(memcmp(buf, back, sizeof(buf)) == 0);
    blob_close(t, b);
    CHECK(blob_delete(t, r.bs, id) == 0);
    rig_close(t, &r);
    return 0;
}

static void foreign_test(void **state)
{
    static const struct foreign all[] = {{3, 4096, 65536, false},
                                         {3, 8192, 65536, false},
                                         {3, 8192, 24576, true},
                                         {2, 4096, 65536, false},
                                         {1, 4096, 4096 * 5, true}};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(all); i++)
        run_task(1, opens_foreign, (void *)(uintptr_t)&all[i]);
}

static int grows(struct rt_task *t, void *arg)
{
    struct rig r = {.uri = URI};
    struct blob_create_opts thick = {.clusters = 600};
    struct blob_store_info before, after;
    uint64_t id;

    CHECK(dev_open(t, r.uri, &r.dev, &r.blk) == 0);
    blk_resized(r.dev, 32 * MIB / 4096);
    CHECK(blob_format(t, r.dev, NULL, NULL) == 0);
    CHECK(rig_store(t, &r, 0) == 0);
    blob_store_info(r.bs, &before);
    CHECK(before.size_bytes == 32 * MIB);
    CHECK(blob_create(t, r.bs, &thick, &id) == -ENOSPC);
    CHECK(blob_store_grow(t, r.bs) == 0);
    blk_resized(r.dev, 64 * MIB / 4096);
    CHECK(blob_store_grow(t, r.bs) == 0);
    blob_store_info(r.bs, &after);
    CHECK(after.clusters == before.clusters + 512);
    CHECK(after.free_clusters == before.free_clusters + 512);
    CHECK(blob_create(t, r.bs, &thick, &id) == 0);
    rig_store_close(t, &r);
    CHECK(rig_check(t, &r) == 0);
    CHECK(rig_store(t, &r, 0) == 0);
    blob_store_info(r.bs, &after);
    CHECK(after.size_bytes == 64 * MIB);
    CHECK(after.was_clean);
    rig_close(t, &r);
    return 0;
}
TEST(grows, 1)

/* --- external snapshots, copies --------------------------------------------------------------- */

static int find_base(struct rt_task *t, void *arg, const void *id, uint16_t id_len,
                     struct blk_dev **out_dev, struct err *why)
{
    if (id_len != 4 || memcmp(id, "base", 4) != 0)
        return err_set(why, -ENOENT, "no such base");
    *out_dev = blk_ref(arg);
    return 0;
}

static int shows_base(struct rt_task *t, struct rig *r, struct blob *b)
{
    CHECK(blob_read(t, r->chan, b, back, TEST_CLUSTER + 8192, 8192) == 0);
    CHECK(memcmp(buf, back, 8192) == 0);
    CHECK(blob_read(t, r->chan, b, back, 2 * TEST_CLUSTER - 4096, 8192) == 0);
    CHECK(bytes_are_zero(back, 8192)); /* the base ends before the blob does */
    return 0;
}

static int stands_on_a_device(struct rt_task *t, void *arg)
{
    struct rig r = {.uri = URI};
    struct blk_dev *base;
    struct blk_chan *bchan;
    struct blob *b;
    uint64_t id, snap;

    CHECK(rig_open(t, &r, NULL) == 0);
    CHECK(dev_open(t, "mem:?size=128K&block_size=512&name=base", &base, &bchan) == 0);
    fill(buf, sizeof(buf), 9);
    CHECK(blk_write(t, bchan, buf, (TEST_CLUSTER + 8192) / 512, 16, 0) == 0);
    CHECK(blob_create_esnap_clone(t, r.bs, "base", 4, 3, NULL, 0, &id) == 0);
    CHECK(blob_open(t, r.bs, id, &b) == 0);
    CHECK(blob_read(t, r.chan, b, back, 0, 4096) == -ENODEV);
    blob_close(t, b);
    blob_store_set_esnap(r.bs, find_base, base);
    CHECK(blob_open(t, r.bs, id, &b) == 0);
    CHECK(shows_base(t, &r, b) == 0);
    memset(back, 7, 4096);
    CHECK(blob_write(t, r.chan, b, back, TEST_CLUSTER, 4096, 0) == 0);
    CHECK(shows_base(t, &r, b) == 0);
    CHECK(blob_snapshot(t, b, NULL, 0, &snap) == 0);
    CHECK(b->esnap == NULL);
    CHECK(shows_base(t, &r, b) == 0);
    CHECK(blob_delete(t, r.bs, snap) == 0);
    CHECK(b->esnap == base);
    CHECK(shows_base(t, &r, b) == 0);
    CHECK(blob_decouple(t, b, NULL, NULL) == 0);
    CHECK(b->esnap == NULL);
    CHECK(shows_base(t, &r, b) == 0);
    CHECK(blob_read(t, r.chan, b, back, TEST_CLUSTER, 4096) == 0);
    CHECK(back[0] == 7);
    blob_close(t, b);
    rig_store_close(t, &r);
    CHECK(rig_check(t, &r) == 0);
    dev_close(t, base, bchan);
    rig_close(t, &r);
    return 0;
}
TEST(stands_on_a_device, 1)

/* All the buffers of the reactor. */
static void take_buffers(struct list *all)
{
    static const size_t sizes[] = {RT_BUF_LARGE_BYTES, RT_BUF_SMALL_BYTES};
    struct rt_buf *b;

    list_init(all);
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++)
        while ((b = rt_buf_get(sizes[i])) != NULL)
            list_add_tail(all, &b->link);
}

static void give_buffers(struct list *all)
{
    struct rt_buf *b;

    while ((b = list_pop_entry(all, struct rt_buf, link)) != NULL)
        rt_buf_put(b);
}

/* Front ends that hold them all wait for just these reads and writes. */
static int needs_no_buffers(struct rt_task *t, void *arg)
{
    struct rig r = {.uri = URI};
    struct blk_chan *bchan;
    struct blk_dev *base;
    struct list held;
    struct blob *b;
    uint64_t id;
    int rc;

    CHECK(rig_open(t, &r, NULL) == 0);
    CHECK(dev_open(t, "mem:?size=128K&block_size=512&name=base", &base, &bchan) == 0);
    fill(buf, sizeof(buf), 9);
    CHECK(blk_write(t, bchan, buf, (TEST_CLUSTER + 8192) / 512, 16, 0) == 0);
    blob_store_set_esnap(r.bs, find_base, base);
    CHECK(blob_create_esnap_clone(t, r.bs, "base", 4, 3, NULL, 0, &id) == 0);
    CHECK(blob_open(t, r.bs, id, &b) == 0);
    take_buffers(&held);
    rc = shows_base(t, &r, b);
    if (rc == 0)
        rc = blob_write(t, r.chan, b, back, TEST_CLUSTER, 4096, 0);
    if (rc == 0)
        rc = shows_base(t, &r, b);
    give_buffers(&held);
    CHECK(rc == 0);
    blob_close(t, b);
    dev_close(t, base, bchan);
    rig_close(t, &r);
    return 0;
}
TEST(needs_no_buffers, 1)

/* The last that holds a slow device leaves it while a read is at it. */
static int leaves_while_read(struct rt_task *t, void *arg)
{
    struct rig r = {.uri = URI};
    struct blob_req req = {.op = BLOB_READ, .len_bytes = TEST_CLUSTER};
    struct iovec iov = {back, TEST_CLUSTER};
    struct blk_chan *bchan;
    struct blk_dev *base;
    struct blob *b;
    uint64_t id;
    int rc;

    CHECK(rig_open(t, &r, NULL) == 0);
    CHECK(dev_open(t, "fault:?delay=50ms&base=mem:%3Fsize=64K%26name=base", &base, &bchan) == 0);
    fill(buf, sizeof(buf), 9);
    CHECK(blk_write(t, bchan, buf, 0, TEST_CLUSTER / 4096, 0) == 0);
    blob_store_set_esnap(r.bs, find_base, base);
    CHECK(blob_create_esnap_clone(t, r.bs, "base", 4, 1, NULL, 0, &id) == 0);
    CHECK(blob_open(t, r.bs, id, &b) == 0);
    dev_close(t, base, bchan);
    rt_req_init_task(&req.req, t);
    req.iov = &iov;
    req.iovcnt = 1;
    req.blob = b;
    blob_submit(r.chan, &req);
    rc = blob_write(t, r.chan, b, buf + TEST_CLUSTER, 0, TEST_CLUSTER, 0);
    if (rc == 0)
        rc = blob_inflate(t, b, NULL, NULL);
    CHECK(rt_wait(t, &req.req) == 0 && rc == 0);
    CHECK(b->esnap == NULL);
    CHECK(memcmp(buf, back, TEST_CLUSTER) == 0); /* the write came while it was under way */
    CHECK(blob_read(t, r.chan, b, back, 0, TEST_CLUSTER) == 0);
    CHECK(memcmp(buf + TEST_CLUSTER, back, TEST_CLUSTER) == 0);
    blob_close(t, b);
    rig_close(t, &r);
    return 0;
}
TEST(leaves_while_read, 1)

static int copies_its_own(struct rt_task *t, void *arg)
{
    struct rig r = {.uri = URI};
    struct blob_create_opts thin = {.clusters = 4, .thin = true};
    struct blk_dev *to;
    struct blk_chan *chan;
    struct blob *b;
    uint64_t id, snap;

    CHECK(rig_open(t, &r, NULL) == 0);
    CHECK(dev_open(t, "mem:?size=256K&name=to", &to, &chan) == 0);
    CHECK(blob_create(t, r.bs, &thin, &id) == 0);
    CHECK(blob_open(t, r.bs, id, &b) == 0);
    fill(buf, sizeof(buf), 5);
    CHECK(blob_write(t, r.chan, b, buf, 0, 4096, 0) == 0);
    CHECK(blob_snapshot(t, b, NULL, 0, &snap) == 0);
    CHECK(blob_write(t, r.chan, b, buf, 2 * TEST_CLUSTER, 4096, 0) == 0);
    memset(back, 1, TEST_CLUSTER);
    CHECK(blk_write(t, chan, back, 0, TEST_CLUSTER / 4096, 0) == 0);
    CHECK(blob_shallow_copy(t, b, to, NULL, NULL) == 0);
    CHECK(blk_read(t, chan, back, 0, 1) == 0);
    CHECK(back[0] == 1); /* that one is the snapshot's */
    CHECK(blk_read(t, chan, back, 2 * TEST_CLUSTER / 4096, 2) == 0);
    CHECK(memcmp(buf, back, 4096) == 0);
    CHECK(bytes_are_zero(back + 4096, 4096));
    blob_close(t, b);
    dev_close(t, to, chan);
    rig_close(t, &r);
    return 0;
}
TEST(copies_its_own, 1)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(makes_and_finds_test),
        cmocka_unit_test(foreign_test),
        cmocka_unit_test(grows_test),
        cmocka_unit_test(stands_on_a_device_test),
        cmocka_unit_test(needs_no_buffers_test),
        cmocka_unit_test(leaves_while_read_test),
        cmocka_unit_test(copies_its_own_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
