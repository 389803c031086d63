/* SPDX-License-Identifier: Apache-2.0 */
/* Finding out which blobs there are: from the masks, or from all metadata pages. */
#include "blob/internal.h"

static uint64_t lba_of(const struct blob_store *bs, uint64_t dev_page)
{
    return dev_page * bs->super.md_page_bytes >> bs->block_shift;
}

static int mask_read(struct rt_task *t, struct blob_store *bs, uint8_t type, struct blob_mask *m,
                     uint32_t start, uint32_t len)
{
    uint64_t total = sizeof(struct blob_mask_disk) + blob_mask_bytes(m), step;

    total = MIN(round_up_u64(total, BLOB_PAGE_BYTES), (uint64_t)len * bs->super.md_page_bytes);
    for (uint64_t done = 0; done < total; done += step) {
        const struct blob_mask_disk *head = (const struct blob_mask_disk *)bs->io;
        uint32_t at = done == 0 ? (uint32_t)sizeof(*head) : 0;
        uint64_t to = done == 0 ? 0 : done - sizeof(*head);
        int rc;

        step = MIN(total - done, BLOB_IO_BYTES);
        rc = blk_read(t, bs->blk, bs->io, lba_of(bs, start) + (done >> bs->block_shift),
                      (uint32_t)(step >> bs->block_shift));
        if (rc < 0)
            return rc;
        /* A mask that is too long is left from growth that did not come about. */
        if (done == 0 && (head->type != type || le32_get(head->nbits) < m->n))
            return 0;
        if (to < blob_mask_bytes(m))
            memcpy(m->bits + to, bs->io + at, MIN(step - at, blob_mask_bytes(m) - to));
    }
    blob_mask_count(m);
    return 1;
}

int blob_masks_read(struct rt_task *t, struct blob_store *bs)
{
    const struct blob_super *s = &bs->super;
    int rc;

    if (!s->clean || s->id_mask_len == 0)
        return 0;
    rc = mask_read(t, bs, BLOB_MASK_PAGES, &bs->pages, s->page_mask_start, s->page_mask_len);
    if (rc == 1)
        rc = mask_read(t, bs, BLOB_MASK_IDS, &bs->ids, s->id_mask_start, s->id_mask_len);
    if (rc == 1)
        rc = mask_read(t, bs, BLOB_MASK_CLUSTERS, &bs->clusters, s->cluster_mask_start,
                       s->cluster_mask_len);
    return rc;
}

/* 1: a root; 0: none; -EBADMSG: it looks like one, but for its checksum. */
static int root_look(const struct blob_page_disk *p, uint32_t page)
{
    if (le64_get(p->id) != (BLOB_ID_BASE | page) || le32_get(p->sequence) != 0)
        return 0;
    if (blob_page_crc_good(p))
        return 1;
    /* Its end is zero: it was being deleted. */
    return le32_get(p->crc) == 0 ? 0 : -EBADMSG;
}

int blob_roots_find(struct rt_task *t, struct blob_store *bs, uint32_t *out_torn)
{
    uint32_t stride = bs->super.md_page_bytes;
    uint32_t per_io = (uint32_t)(BLOB_IO_BYTES / stride), n;

    *out_torn = BLOB_NO_PAGE;
    for (uint32_t first = 0; first < bs->super.md_len; first += n) {
        int rc;

        n = MIN(per_io, bs->super.md_len - first);
        rc = blk_read(t, bs->blk, bs->io, lba_of(bs, (uint64_t)bs->super.md_start + first),
                      n * (stride >> bs->block_shift));
        if (rc < 0)
            return rc;
        for (uint32_t i = 0; i < n; i++) {
            const void *page = bs->io + (size_t)i * stride;

            rc = root_look(page, first + i);
            if (rc != 0)
                blob_mask_set(&bs->ids, first + i);
            if (rc < 0)
                *out_torn = first + i;
        }
    }
    return 0;
}
