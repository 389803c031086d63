/* SPDX-License-Identifier: Apache-2.0 */
/* Clones of external snapshots: made, opened by who says where they are, and made independent. */
#include "blob/lvol/lvol_test.h"

#define BASE "mem:?size=1M&block_size=512&name="
/* The same inside of a URI. */
#define EXT(name) "&external=mem:%3Fsize=1M%26block_size=512%26name=" name

struct bed {
    struct blk_dev *base, *dev;
    struct blk_chan *chan;
    struct lvs lvs;
};

/* A store in memory, and a device whose blocks 1 and 1000 have something. */
static int bed_open(struct rt_task *t, struct bed *b, const char *store, const char *base)
{
    CHECK(mem_open(t, store, LVS_OPEN_FORMAT, &b->dev, &b->lvs) == 0);
    CHECK(dev_open(t, base, &b->base, &b->chan) == 0);
    CHECK(fill(t, b->chan, 1, 1) == 0);
    CHECK(fill(t, b->chan, 1000, 2) == 0);
    return 0;
}

static void bed_close(struct rt_task *t, struct bed *b)
{
    dev_close(t, b->base, b->chan);
    mem_close(t, b->dev, &b->lvs);
}

static int clones(struct rt_task *t, void *arg)
{
    struct lvol_info info;
    struct bed b;
    struct blk_dev *vol;
    struct blk_chan *chan;
    struct err why = {""};
    uint64_t id, plain;

    CHECK(bed_open(t, &b, MEM "x", BASE "xb") == 0);
    CHECK(lvol_clone_external(t, &b.lvs, BASE "xb", "c", 0, &id, &why) == 0);
    CHECK(lvol_info(t, &b.lvs, id, &info) == 0);
    CHECK(info.blob.esnap_clone && info.blob.thin && info.blob.len_bytes == MIB);
    CHECK(info.blob.allocated_clusters == 0);
    CHECK(strlen(info.external) == 36 && strcmp(info.external_uri, BASE "xb") == 0);
    CHECK(!info.external_open);

    /* Nothing is opened that the user has not named. */
    CHECK(blk_open(t, LVOL_MEM "x#c", &vol, &why) == -ENODEV);
    CHECK(strstr(why.text, "external=") != NULL && strstr(why.text, info.external) != NULL);
    CHECK(dev_open(t, LVOL_MEM "x" EXT("xb") "#c", &vol, &chan) == 0);
    CHECK(lvol_info(t, &b.lvs, id, &info) == 0 && info.external_open);
    CHECK(first_byte(t, chan, 1) == 1 && first_byte(t, chan, 1000) == 2);
    CHECK(fill(t, chan, 2, 3) == 0); /* the rest of the cluster is copied */
    CHECK(first_byte(t, chan, 1) == 1 && first_byte(t, chan, 2) == 3);
    CHECK(first_byte(t, b.chan, 2) == 0);
    CHECK(blk_zero(t, chan, 896, 128, BLK_F_UNMAP) == 0);
    CHECK(first_byte(t, chan, 1000) == 0 && first_byte(t, b.chan, 1000) == 2);
    dev_close(t, vol, chan);

    /* The rest of the store does not need it. */
    CHECK(add(t, &b.lvs, "plain", MIB, true, &plain) == 0);
    CHECK(dev_open(t, LVOL_MEM "x#plain", &vol, &chan) == 0);
    CHECK(fill(t, chan, 1, 1) == 0);
    dev_close(t, vol, chan);
    CHECK(blk_open(t, LVOL_MEM "x" EXT("xb") "#plain", &vol, &why) == -EINVAL);
    CHECK(lvol_delete(t, &b.lvs, id, &why) == 0);
    bed_close(t, &b);
    return 0;
}
TEST(clones, 1)

/* Through a snapshot of the clone, and a clone of that; nothing of the device below is needed to
 * manage them. */
static int families(struct rt_task *t, void *arg)
{
    struct lvol_external *e, *again;
    struct lvol_info info;
    struct bed b;
    struct blk_dev *vol, *two;
    struct blk_chan *chan, *ctwo;
    struct err why = {""};
    uint64_t id, snap, copy;

    CHECK(bed_open(t, &b, MEM "y", BASE "yb") == 0);
    CHECK(lvol_clone_external(t, &b.lvs, BASE "yb", "c", 2 * MIB, &id, &why) == 0);
    CHECK(lvol_snapshot(t, &b.lvs, id, "s", &snap, &why) == 0);
    CHECK(lvol_clone(t, &b.lvs, snap, "d", &copy, &why) == 0);
    CHECK(lvol_info(t, &b.lvs, copy, &info) == 0);
    CHECK(!info.blob.esnap_clone && info.external[0] != '\0');
    CHECK(strcmp(info.external_uri, BASE "yb") == 0);
    CHECK(lvol_inflate(t, &b.lvs, copy, NULL, &why) == -ENODEV);
    CHECK(lvol_info(t, &b.lvs, copy, &info) == 0);
    CHECK(info.external[0] != '\0');

    CHECK(dev_open(t, LVOL_MEM "y" EXT("yb") "#d", &vol, &chan) == 0);
    CHECK(dev_open(t, LVOL_MEM "y#c", &two, &ctwo) == 0); /* it is open by now */
    CHECK(first_byte(t, chan, 1000) == 2 && first_byte(t, ctwo, 1000) == 2);
    CHECK(first_byte(t, chan, 2048) == 0); /* behind its end */
    CHECK(fill(t, ctwo, 1001, 9) == 0);
    CHECK(first_byte(t, chan, 1001) == 0 && first_byte(t, ctwo, 1000) == 2);
    dev_close(t, two, ctwo);
    dev_close(t, vol, chan);

    CHECK(lvol_external_open(t, &b.lvs, copy, NULL, &e, &why) == -ENODEV);
    CHECK(lvol_external_open(t, &b.lvs, copy, BASE "yb", &e, &why) == 0);
    CHECK(lvol_external_open(t, &b.lvs, id, NULL, &again, &why) == 0 && again == e);
    CHECK(lvol_inflate(t, &b.lvs, copy, NULL, &why) == 0);
    CHECK(lvol_decouple(t, &b.lvs, id, NULL, &why) == 0);
    CHECK(lvol_delete(t, &b.lvs, snap, &why) == 0); /* stood on by nobody */
    lvol_external_close(t, again);
    CHECK(lvol_info(t, &b.lvs, id, &info) == 0);
    CHECK(info.external[0] != '\0' && info.external_open); /* the snapshot had stood on it */
    CHECK(lvol_decouple(t, &b.lvs, id, NULL, &why) == 0);
    lvol_external_close(t, e);
    CHECK(lvol_info(t, &b.lvs, id, &info) == 0 && info.external[0] == '\0');
    CHECK(info.blob.thin && info.blob.allocated_clusters == 32);
    CHECK(lvol_info(t, &b.lvs, copy, &info) == 0 && info.external[0] == '\0' && !info.blob.thin);
    CHECK(dev_open(t, LVOL_MEM "y#d", &vol, &chan) == 0);
    CHECK(first_byte(t, chan, 1) == 1 && first_byte(t, chan, 1000) == 2);
    dev_close(t, vol, chan);
    bed_close(t, &b);
    return 0;
}
TEST(families, 1)

static int refused(struct rt_task *t, void *arg)
{
    struct lvol_external *e, *other;
    struct bed b, far;
    struct blk_dev *vol, *coarse;
    struct blk_chan *chan;
    struct err why = {""};
    uint64_t id, sub, snap;

    CHECK(bed_open(t, &b, MEM "z", BASE "zb") == 0);
    CHECK(bed_open(t, &far, MEM "far", BASE "zc") == 0);
    CHECK(lvol_clone_external(t, &b.lvs, "nowhere.img", "c", 0, &id, &why) == -ENOENT);
    CHECK(blk_open(t, "mem:?size=1M&block_size=4096&name=coarse", &coarse, &why) == 0);
    CHECK(lvol_clone_external(t, &b.lvs, blk_uri(coarse), "c", 0, &id, &why) == -EINVAL);
    CHECK(strstr(why.text, "blocks") != NULL);
    blk_close(t, coarse);
    CHECK(add(t, &b.lvs, "own", MIB, true, &id) == 0);
    CHECK(lvol_clone_external(t, &b.lvs, LVOL_MEM "z#own", "c", 0, &id, &why) == -EINVAL);
    CHECK(strstr(why.text, "same store") != NULL);
    CHECK(lvol_clone_external(t, &b.lvs, BASE "zb", "own", 0, &id, &why) == -EEXIST);

    /* Volumes of another store say themselves which they are. */
    CHECK(add(t, &far.lvs, "a", MIB, true, &sub) == 0);
    CHECK(lvol_snapshot(t, &far.lvs, sub, "b", &snap, &why) == 0);
    CHECK(lvol_clone_external(t, &b.lvs, LVOL_MEM "far#b", "c", 0, &id, &why) == 0);
    CHECK(lvol_external_open(t, &b.lvs, id, LVOL_MEM "far#a", &e, &why) == -EINVAL);
    CHECK(strstr(why.text, "is another") != NULL);
    CHECK(lvol_external_open(t, &b.lvs, id, LVOL_MEM "far#b", &e, &why) == 0);
    CHECK(lvol_external_open(t, &b.lvs, id, LVOL_MEM "far#a", &other, &why) == -EBUSY);
    CHECK(dev_open(t, LVOL_MEM "z#c", &vol, &chan) == 0);
    lvol_external_close(t, e);
    CHECK(first_byte(t, chan, 0) == 0); /* the open volume keeps it */
    CHECK(fill(t, chan, 0, 5) == 0);
    dev_close(t, vol, chan);
    bed_close(t, &far);
    bed_close(t, &b);
    return 0;
}
TEST(refused, 1)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clones_test),
        cmocka_unit_test(families_test),
        cmocka_unit_test(refused_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
