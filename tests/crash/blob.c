/* SPDX-License-Identifier: Apache-2.0 */
/* The blobstore as a subject: mixed changes of metadata and data, cut anywhere. */
#include "blobs.h"

#include "base/endian.h"
#include "blob/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define OPS 520 /* of each of the four workers */
#define TROUBLE_OPS 20
#define TROUBLE_EXTERNAL_OPS 50

/* Pages of metadata are rewritten in place, as SPDK's format has it: a page that is torn is lost.
 * Disks write 4096 bytes whole; that is what the format rests on. */
void blobs_find_metadata(void)
{
    const uint8_t *super = disk.mem;

    disk.nwholes = 0;
    disk_whole_add(0, ((uint64_t)le32_at(super + 48) + le32_at(super + 52)) * 4096);
}

static int external_open(struct rt_task *t, unsigned which, struct blk_dev **out_dev,
                         struct err *why)
{
    char uri[80];

    snprintf(uri, sizeof(uri), "file:%s?block_size=512&readonly=yes", external_path(which));
    return blk_open(t, uri, out_dev, why);
}

int blobs_external(struct rt_task *t, void *held, const void *id, uint16_t id_len,
                   struct blk_dev **out_dev, struct err *why)
{
    int which = external_of(id, id_len), rc = 0;
    struct blobs_held *h = held;

    if (which < 0)
        return err_set(why, -ENODEV, "no such external device");
    if (h == NULL)
        return external_open(t, (unsigned)which, out_dev, why);
    if (h->dev[which] == NULL)
        rc = external_open(t, (unsigned)which, &h->dev[which], why);
    if (rc == 0 && h->chan[which] == NULL)
        rc = blk_chan_get(t, h->dev[which], &h->chan[which]);
    if (rc == 0)
        *out_dev = blk_ref(h->dev[which]);
    return rc;
}

void blobs_let_go(struct rt_task *t, struct blobs_held *held)
{
    for (unsigned i = 0; i < EXTERNALS; i++) {
        if (held->chan[i] != NULL)
            blk_chan_put(t, held->chan[i]);
        if (held->dev[i] != NULL)
            blk_close(t, held->dev[i]);
    }
}

static int format(struct rt_task *t, void *arg)
{
    struct blob_format_opts opts = {.cluster_bytes = BLOBM_CLUSTER_BYTES, .md_pages = 256};
    struct err why = {""};
    struct blk_dev *dev;
    int rc = blk_open(t, BLOBS_URI, &dev, &why);

    (void)arg;
    if (rc < 0)
        return rc;
    rc = blob_format(t, dev, &opts, &why);
    blk_close(t, dev);
    if (rc < 0)
        printf("crash: blob: %s\n", why.text);
    else
        blobs_find_metadata();
    return rc;
}

static int work(struct rt_task *t, void *arg)
{
    struct blobs_work w = {.seed = *(uint64_t *)arg, .ops = OPS, .external_ops = OPS};
    struct err why = {""};
    struct blob_store *bs;
    int rc = blob_store_open(t, BLOBS_URI, NULL, 0, &bs, &why);

    blobm_reset();
    if (rc < 0) {
        printf("crash: blob: %s\n", why.text);
        return rc;
    }
    blob_store_set_esnap(bs, blobs_external, NULL);
    rc = blobs_work(t, bs, &w);
    if (rc < 0)
        printf("crash: blob: %s\n", w.why);
    blob_store_close(t, bs);
    return rc;
}

/* Things fail: some may keep the store from being opened, or closed. */
static int trouble(struct rt_task *t, void *arg)
{
    struct blobs_held held = {0};
    struct blobs_work w = {.seed = *(uint64_t *)arg,
                           .ops = TROUBLE_OPS,
                           .external_ops = TROUBLE_EXTERNAL_OPS,
                           .faulty = true};
    struct err why = {""};
    struct blob_store *bs;
    int rc;

    blobm_reset();
    if (blob_store_open(t, BLOBS_URI, NULL, 0, &bs, &why) < 0)
        return 0;
    blob_store_set_esnap(bs, blobs_external, &held);
    rc = blobs_work(t, bs, &w);
    if (rc < 0)
        printf("crash: blob: %s\n", w.why);
    blob_store_close(t, bs);
    blobs_let_go(t, &held);
    return rc;
}

static void found(void *arg, const struct blob_check_finding *f)
{
    struct look *l = arg;

    if (f->severity == BLOB_CHECK_ERROR)
        look_bad(l, "check: %s at %llu: %s", f->structure, (unsigned long long)f->offset, f->text);
}

/* What the checker, which shares nothing with the store, says of the disk before it is opened. */
int blobs_check(struct rt_task *t, struct look *l)
{
    struct blob_check_opts opts = {.found = found, .arg = l};
    struct blob_check_report report = {0};
    struct err why = {""};
    struct blk_chan *chan;
    struct blk_dev *dev;
    char before[WHY_MAX];
    int rc = blk_open(t, BLOBS_URI, &dev, &why);

    if (rc < 0)
        return look_bad(l, "%s", why.text);
    must(blk_chan_get(t, dev, &chan) == 0);
    memcpy(before, l->why, sizeof(before));
    rc = blob_check(t, chan, &opts, &report);
    blk_chan_put(t, chan);
    blk_close(t, dev);
    if (l->tolerant) { /* what it found is found */
        l->errors += report.errors + report.warnings > 0 || rc < 0;
        memcpy(l->why, before, sizeof(before));
        return 0;
    }
    if (rc < 0)
        return look_bad(l, "check answered %d", rc);
    return report.errors > 0 ? -EILSEQ : 0;
}

static int look(struct rt_task *t, void *arg)
{
    struct blobs_held held = {0};
    struct look *l = arg;
    struct err why = {""};
    struct blob_store *bs;
    int rc = blobs_check(t, l);

    if (rc < 0)
        return rc;
    rc = blob_store_open(t, BLOBS_URI, NULL, 0, &bs, &why);
    if (rc < 0)
        return l->tolerant ? look_error(l, why.text, rc)
                           : look_bad(l, "cannot be opened: %d %s", rc, why.text);
    blob_store_set_esnap(bs, blobs_external, &held);
    rc = blobs_look(t, bs, l);
    if (rc == 0 && l->go_on) {
        rc = blobs_go_on(t, bs, l);
        if (rc == 0)
            rc = blobs_look(t, bs, l);
    }
    if (rc == 0 && l->close) {
        blob_store_close(t, bs);
        blobs_let_go(t, &held);
    }
    return rc;
}

const struct subject subject_blob = {
    .name = "blob",
    .disk_bytes = BLOBS_DISK_BYTES,
    .block_bytes = 512,
    .data_unchecked = true,
    .format = format,
    .work = work,
    .trouble = trouble,
    .model_begin = blobm_begin,
    .model_to = blobm_to,
    .look = look,
    .show = blobm_show,
};
