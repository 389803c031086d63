/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An empty store. What is cut off on the way leaves a device of zeroes, or a store as after an
 * unclean stop in which nothing has been made yet.
 */
#include "blob/internal.h"

static int choose(struct blob_super *s, const struct blk_dev *dev,
                  const struct blob_format_opts *opts, struct err *why)
{
    const struct blk_info *info = blk_info(dev);
    uint64_t size = info->nblocks * info->block_bytes, total;
    uint32_t cluster = opts->cluster_bytes;

    if (info->block_bytes > BLOB_PAGE_BYTES)
        return err_set(why, -EINVAL, "%s: a blobstore needs blocks of at most 4096 bytes",
                       blk_uri(dev));
    for (cluster = cluster != 0 ? cluster : 64 * KIB;
         opts->cluster_bytes == 0 && cluster < 4 * MIB && size / cluster > 16384;)
        cluster *= 2;
    if (cluster % BLOB_PAGE_BYTES != 0 || cluster == 0)
        return err_set(why, -EINVAL, "clusters of %u bytes: not a multiple of 4096", cluster);
    total = size / cluster;
    *s = (struct blob_super){.version = 3,
                             .clean = true,
                             .super_blob = BLOB_ID_NONE,
                             .cluster_bytes = cluster,
                             .md_len = opts->md_pages != 0 ? opts->md_pages
                                                           : (uint32_t)MIN(total, UINT32_MAX - 1),
                             .size_bytes = size,
                             .io_unit_bytes = info->block_bytes,
                             .md_page_bytes = BLOB_PAGE_BYTES};
    memcpy(s->bstype, opts->bstype, sizeof(s->bstype));
    return blob_super_layout(s, why);
}

static int clear_data(struct rt_task *t, struct blob_store *bs, const struct blk_info *info,
                      enum blob_clear clear)
{
    uint64_t from = blob_cluster_lba(bs, (uint32_t)blob_super_md_clusters(&bs->super));

    if (clear == BLOB_CLEAR_NONE)
        return 0;
    if (clear == BLOB_CLEAR_ZEROES)
        return blk_zero(t, bs->blk, from, info->nblocks - from, 0);
    blk_unmap(t, bs->blk, from, info->nblocks - from); /* a kindness to the device only */
    return 0;
}

/* Zeroes from the super block on, the super block, the masks, and the super block as clean. */
static int write_all(struct rt_task *t, struct blob_store *bs, const struct blob_super *s,
                     enum blob_clear clear)
{
    uint64_t md_blocks = (uint64_t)(s->md_start + s->md_len) * s->md_page_bytes >> bs->block_shift;
    uint32_t page_blocks = BLOB_PAGE_BYTES >> bs->block_shift;
    int rc;

    memset(bs->super_page, 0, BLOB_PAGE_BYTES);
    rc = blk_write(t, bs->blk, bs->super_page, 0, page_blocks, 0);
    if (rc == 0)
        rc = blk_flush(t, bs->blk);
    if (rc == 0)
        rc = blk_zero(t, bs->blk, page_blocks, md_blocks - page_blocks, BLK_F_UNMAP);
    if (rc == 0)
        rc = clear_data(t, bs, blk_info(bs->dev), clear);
    if (rc == 0)
        rc = blk_flush(t, bs->blk);
    if (rc == 0)
        rc = blob_super_write(t, bs, &bs->super);
    for (uint64_t i = 0; rc == 0 && i < blob_super_md_clusters(s); i++)
        blob_mask_set(&bs->clusters, i);
    return rc == 0 ? blob_masks_write(t, bs) : rc;
}

int blob_format(struct rt_task *t, struct blk_dev *dev, const struct blob_format_opts *opts,
                struct err *why)
{
    static const struct blob_format_opts defaults;
    struct blob_store *bs;
    struct blob_super s;
    int rc;

    opts = opts != NULL ? opts : &defaults;
    rc = choose(&s, dev, opts, why);
    if (rc < 0)
        return rc;
    rc = blk_claim(dev, BLK_CLAIM_EXCLUSIVE, "blobstore", why);
    if (rc < 0)
        return rc;
    bs = blob_store_new(dev, false);
    rc = bs == NULL ? -ENOMEM : blk_chan_get(t, dev, &bs->blk);
    if (rc == 0) {
        rt_task_shield(t, true);
        bs->super = s;
        bs->super.clean = false;
        bs->total_clusters = blob_super_clusters(&s);
        rc = blob_masks_init(bs);
        if (rc == 0)
            rc = write_all(t, bs, &s, opts->clear);
        blk_chan_put(t, bs->blk);
        rt_task_shield(t, false);
    }
    if (bs != NULL)
        blob_store_free(bs);
    blk_unclaim(dev, BLK_CLAIM_EXCLUSIVE, "blobstore");
    return rc < 0 ? err_set(why, rc, "%s: %s", blk_uri(dev), err_str(rc)) : 0;
}
