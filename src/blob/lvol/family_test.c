/* SPDX-License-Identifier: Apache-2.0 */
#include "blob/lvol/lvol_test.h"

static int families(struct rt_task *t, void *arg)
{
    struct lvol_info info;
    struct blk_dev *dev;
    struct lvs lvs;
    struct err why = {""};
    uint64_t a, snap, clone, second, id;

    CHECK(mem_open(t, MEM "f", LVS_OPEN_FORMAT, &dev, &lvs) == 0);
    CHECK(add(t, &lvs, "a", MIB, false, &a) == 0);
    CHECK(lvol_clone(t, &lvs, a, "c", &id, &why) == -EINVAL);
    CHECK(strstr(why.text, "snapshot") != NULL);
    CHECK(lvol_decouple(t, &lvs, a, NULL, &why) == -EINVAL);
    CHECK(lvol_snapshot(t, &lvs, a, "a", &id, &why) == -EEXIST);
    CHECK(lvol_snapshot(t, &lvs, a, "s", &snap, &why) == 0);
    CHECK(lvol_clone(t, &lvs, snap, "s", &id, &why) == -EEXIST);
    CHECK(lvol_clone(t, &lvs, snap, "c", &clone, &why) == 0);
    CHECK(lvol_info(t, &lvs, snap, &info) == 0);
    CHECK(info.blob.snapshot && info.blob.read_only && info.blob.nclones == 2);
    CHECK(info.blob.allocated_clusters == 16);
    CHECK(strcmp(info.name, "s") == 0);
    CHECK(lvol_info(t, &lvs, a, &info) == 0);
    CHECK(info.blob.clone && info.blob.parent == snap && info.blob.allocated_clusters == 0);
    CHECK(strcmp(info.name, "a") == 0);
    CHECK(lvol_delete(t, &lvs, snap, &why) == -EBUSY);
    CHECK(strstr(why.text, "2 volumes") != NULL);
    CHECK(lvol_inflate(t, &lvs, clone, NULL, &why) == 0);
    CHECK(lvol_info(t, &lvs, clone, &info) == 0);
    CHECK(!info.blob.clone && !info.blob.thin && info.blob.allocated_clusters == 16);
    CHECK(lvol_delete(t, &lvs, snap, &why) == 0);
    CHECK(lvol_info(t, &lvs, a, &info) == 0);
    CHECK(!info.blob.clone && info.blob.allocated_clusters == 16);
    lvs_close(t, &lvs);
    CHECK(lvs_open(t, MEM "f", LVS_OPEN_READ_ONLY, NULL, &lvs, &why) == 0);
    CHECK(lvol_info(t, &lvs, a, &info) == 0);
    CHECK(!info.blob.read_only); /* the store is, not the volume */
    CHECK(lvol_snapshot(t, &lvs, a, "s2", &second, &why) == -EROFS);
    CHECK(strstr(why.text, "reading only") != NULL);
    lvs_close(t, &lvs);
    CHECK(lvs_open(t, MEM "f", 0, NULL, &lvs, &why) == 0);
    CHECK(lvol_snapshot(t, &lvs, a, "s2", &second, &why) == 0);
    CHECK(lvol_decouple(t, &lvs, a, NULL, &why) == 0);
    CHECK(lvol_info(t, &lvs, a, &info) == 0);
    CHECK(!info.blob.clone && info.blob.thin && info.blob.allocated_clusters == 16);
    mem_close(t, dev, &lvs);
    return 0;
}
TEST(families, 1)

static int snapshots_stay(struct rt_task *t, void *arg)
{
    struct blk_dev *base, *dev, *old, *copy;
    struct blk_chan *chan, *cold, *ccopy;
    struct lvs lvs;
    struct err why = {""};
    uint64_t id, snap, clone;

    CHECK(mem_open(t, MEM "o", LVS_OPEN_FORMAT, &base, &lvs) == 0);
    CHECK(add(t, &lvs, "a", MIB, true, &id) == 0);
    CHECK(dev_open(t, LVOL_MEM "o#a", &dev, &chan) == 0);
    CHECK(fill(t, chan, 1, 1) == 0);
    CHECK(lvol_snapshot(t, &lvs, id, "snap", &snap, &why) == 0); /* while it is open */
    CHECK(lvol_clone(t, &lvs, snap, "clone", &clone, &why) == 0);
    CHECK(dev_open(t, LVOL_MEM "o#snap", &old, &cold) == 0);
    CHECK(dev_open(t, LVOL_MEM "o#clone", &copy, &ccopy) == 0);
    CHECK(blk_info(old)->caps & BLK_CAP_READ_ONLY);
    CHECK(fill(t, chan, 2, 2) == 0);
    CHECK(fill(t, ccopy, 3, 3) == 0);
    CHECK(first_byte(t, chan, 1) == 1 && first_byte(t, chan, 2) == 2);
    CHECK(first_byte(t, cold, 1) == 1 && first_byte(t, cold, 2) == 0);
    CHECK(first_byte(t, ccopy, 1) == 1 && first_byte(t, ccopy, 2) == 0);
    CHECK(first_byte(t, ccopy, 3) == 3 && first_byte(t, chan, 3) == 0);
    CHECK(blk_zero(t, ccopy, 0, 128, BLK_F_UNMAP) == 0);
    CHECK(first_byte(t, ccopy, 1) == 0 && first_byte(t, ccopy, 3) == 0);
    CHECK(first_byte(t, chan, 1) == 1 && first_byte(t, cold, 1) == 1);
    dev_close(t, old, cold);
    dev_close(t, copy, ccopy);
    dev_close(t, dev, chan);
    mem_close(t, base, &lvs);
    return 0;
}
TEST(snapshots_stay, 1)

static int shallow(struct rt_task *t, void *arg)
{
    struct blk_dev *base, *dev, *to, *small;
    struct blk_chan *chan, *cto;
    struct lvs lvs;
    struct err why = {""};
    uint64_t id, snap;

    CHECK(mem_open(t, MEM "y", LVS_OPEN_FORMAT, &base, &lvs) == 0);
    CHECK(add(t, &lvs, "a", MIB, true, &id) == 0);
    CHECK(dev_open(t, LVOL_MEM "y#a", &dev, &chan) == 0);
    CHECK(fill(t, chan, 0, 1) == 0);
    CHECK(lvol_snapshot(t, &lvs, id, "below", &snap, &why) == 0);
    CHECK(fill(t, chan, 1000, 2) == 0);
    dev_close(t, dev, chan);
    CHECK(dev_open(t, "mem:?size=2M&block_size=512", &to, &cto) == 0);
    CHECK(fill(t, cto, 0, 7) == 0);
    CHECK(fill(t, cto, 1000, 7) == 0);
    CHECK(lvol_shallow_copy(t, &lvs, id, to, NULL, &why) == -EINVAL);
    CHECK(strstr(why.text, "read-only") != NULL);
    CHECK(lvol_set_read_only(t, &lvs, id, &why) == 0);
    CHECK(blk_open(t, "mem:?size=512K&block_size=512", &small, &why) == 0);
    CHECK(lvol_shallow_copy(t, &lvs, id, small, NULL, &why) == -ENOSPC);
    blk_close(t, small);
    CHECK(lvol_shallow_copy(t, &lvs, id, to, NULL, &why) == 0);
    CHECK(first_byte(t, cto, 1000) == 2);
    CHECK(first_byte(t, cto, 0) == 7); /* what is the snapshot's is not copied */
    dev_close(t, to, cto);
    mem_close(t, base, &lvs);
    return 0;
}
TEST(shallow, 1)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_test),
        cmocka_unit_test(snapshots_stay_test),
        cmocka_unit_test(shallow_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
