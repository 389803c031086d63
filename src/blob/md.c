/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata on the disk: pages, masks, the super block, and reading a blob. All of it runs on the
 * home reactor under the store's lock. Changing a blob is in change.c.
 */
#include "blob/internal.h"

#include "base/plant.h"

/* --- pages ------------------------------------------------------------------------------------ */

static uint64_t page_lba(const struct blob_store *bs, uint64_t dev_page)
{
    return dev_page * bs->super.md_page_bytes >> bs->block_shift;
}

static uint32_t page_blocks(const struct blob_store *bs)
{
    return BLOB_PAGE_BYTES >> bs->block_shift;
}

int blob_md_read(struct rt_task *t, struct blob_store *bs, uint32_t page, void *out)
{
    must(page < bs->super.md_len);
    return blk_read(t, bs->blk, out, page_lba(bs, (uint64_t)bs->super.md_start + page),
                    page_blocks(bs));
}

int blob_md_write(struct rt_task *t, struct blob_store *bs, uint32_t page, const void *data)
{
    must(page < bs->super.md_len);
    must(!bs->read_only);
    return blk_write(t, bs->blk, data, page_lba(bs, (uint64_t)bs->super.md_start + page),
                     page_blocks(bs), 0);
}

void blob_md_zero(struct rt_task *t, struct blob_store *bs, const uint32_t *page, unsigned n)
{
    memset(bs->page, 0, sizeof(*bs->page));
    for (unsigned i = 0; i < n; i++)
        blob_md_write(t, bs, page[i], bs->page);
}

/* For tests/crash to find: one flush in eight does nothing. */
static bool planted_skip(void)
{
    static unsigned flushes;

    return PLANTED("blob-skip-flush") && flushes++ % 8 == 7;
}

int blob_md_flush(struct rt_task *t, struct blob_store *bs)
{
    int rc = planted_skip() ? 0 : blk_flush(t, bs->blk);

    /* What the device has lost of what it had accepted nobody can tell. */
    if (rc < 0) {
        bs->failed = rc;
        blob_flush_failed(bs);
    } else {
        bs->lazy = false;
    }
    return rc;
}

/* --- super block ------------------------------------------------------------------------------ */

int blob_super_write(struct rt_task *t, struct blob_store *bs, const struct blob_super *s)
{
    int rc;

    blob_super_encode(s, bs->super_page);
    rc = blk_write(t, bs->blk, bs->super_page, 0, page_blocks(bs), 0);
    if (rc < 0) {
        bs->failed = rc;
        return rc;
    }
    bs->super = *s;
    return blob_md_flush(t, bs);
}

int blob_md_dirty(struct rt_task *t, struct blob_store *bs)
{
    struct blob_super s = bs->super;

    if (bs->read_only)
        return -EROFS;
    if (bs->failed < 0)
        return -EIO;
    if (!s.clean)
        return 0;
    s.clean = false;
    return blob_super_write(t, bs, &s);
}

/* --- masks ------------------------------------------------------------------------------------ */

static int mask_write(struct rt_task *t, struct blob_store *bs, uint8_t type,
                      const struct blob_mask *m, uint32_t start, uint32_t len)
{
    struct blob_mask_disk head = {.type = type, .nbits = le32_make((uint32_t)m->n)};
    uint64_t total = (uint64_t)len * bs->super.md_page_bytes, have = blob_mask_bytes(m);
    uint64_t done = 0, step;

    for (; done < total; done += step) {
        uint32_t at = done == 0 ? (uint32_t)sizeof(head) : 0;
        uint64_t from = done == 0 ? 0 : done - sizeof(head);
        int rc;

        step = MIN(total - done, BLOB_IO_BYTES);
        memset(bs->io, 0, step);
        if (done == 0)
            memcpy(bs->io, &head, sizeof(head));
        if (from < have)
            memcpy(bs->io + at, m->bits + from, MIN(step - at, have - from));
        rc = blk_write(t, bs->blk, bs->io, page_lba(bs, start) + (done >> bs->block_shift),
                       (uint32_t)(step >> bs->block_shift), 0);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int blob_masks_write(struct rt_task *t, struct blob_store *bs)
{
    struct blob_super s = bs->super;
    int rc;

    if (s.clean)
        return 0;
    if (bs->failed < 0)
        return -EIO;
    rc = mask_write(t, bs, BLOB_MASK_PAGES, &bs->pages, s.page_mask_start, s.page_mask_len);
    if (rc == 0 && s.id_mask_len > 0)
        rc = mask_write(t, bs, BLOB_MASK_IDS, &bs->ids, s.id_mask_start, s.id_mask_len);
    if (rc == 0)
        rc = mask_write(t, bs, BLOB_MASK_CLUSTERS, &bs->clusters, s.cluster_mask_start,
                        s.cluster_mask_len);
    if (rc < 0)
        return rc;
    rc = blob_md_flush(t, bs);
    if (rc < 0)
        return rc;
    s.clean = true;
    return blob_super_write(t, bs, &s);
}

/* --- reading a blob --------------------------------------------------------------------------- */

void blob_free(struct blob *b)
{
    struct blob_map *m;

    if (b == NULL)
        return;
    while ((m = b->old_maps) != NULL) {
        b->old_maps = m->older;
        blob_map_free(m);
    }
    blob_head_fini(&b->head);
    blob_map_free(b->map);
    free(b->chain);
    free(b);
}

static int chain_add(struct blob *b, uint32_t page)
{
    uint32_t *more = b->chain;

    if ((b->nchain & (b->nchain - 1)) == 0)
        more = realloc(b->chain, (b->nchain == 0 ? 1 : 2 * (size_t)b->nchain) * sizeof(*more));
    if (more == NULL)
        return -ENOMEM;
    b->chain = more;
    b->chain[b->nchain++] = page;
    return 0;
}

static int chain_read(struct rt_task *t, struct blob *b, struct blob_parse *p)
{
    struct blob_store *bs = b->bs;
    uint32_t page = (uint32_t)b->id;

    /* A loop in the chain ends where a page has the wrong number. */
    for (uint32_t seq = 0; page != BLOB_NO_PAGE; seq++) {
        int rc;

        if (page >= bs->super.md_len || seq >= BLOB_CHAIN_MAX)
            return -EBADMSG;
        rc = blob_md_read(t, bs, page, bs->page);
        if (rc < 0)
            return rc;
        if (!blob_page_crc_good(bs->page))
            return -EBADMSG;
        rc = blob_parse_page(p, bs->page, seq);
        if (rc == 0 && seq > 0)
            rc = chain_add(b, page);
        if (rc < 0)
            return rc;
        page = le32_get(bs->page->next);
    }
    return blob_parse_end(p);
}

static int leaves_read(struct rt_task *t, struct blob *b, struct blob_parse *p)
{
    struct blob_store *bs = b->bs;

    for (uint32_t i = 0; i < p->map->nleaves; i++) {
        int rc;

        if (p->map->page[i] == 0)
            continue;
        rc = blob_md_read(t, bs, p->map->page[i], bs->page);
        if (rc < 0)
            return rc;
        if (!blob_page_crc_good(bs->page))
            return -EBADMSG;
        rc = blob_parse_extent_page(p, bs->page, i);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Clusters have to lie behind the metadata, and a thick blob has all of them. */
static int clusters_check(struct blob *b)
{
    uint64_t lowest = blob_super_md_clusters(&b->bs->super);

    for (uint32_t l = 0; l < b->map->nleaves; l++) {
        for (uint32_t i = 0; b->map->leaf[l] != NULL && i < blob_map_leaf_len(b->map, l); i++) {
            uint32_t cluster = b->map->leaf[l]->cluster[i];

            if (cluster == 0)
                continue;
            if (cluster < lowest || cluster >= b->bs->total_clusters)
                return -EBADMSG;
            b->nallocated++;
        }
    }
    if (!(b->head.invalid & BLOB_INVALID_THIN) && b->nallocated != b->map->nclusters)
        return -EBADMSG;
    return 0;
}

uint64_t blob_parent_id(const struct blob *b)
{
    const struct blob_attr *a = blob_head_find(&b->head, true, BLOB_X_SNAP);

    if (a == NULL || !(b->head.invalid & BLOB_INVALID_THIN) ||
        (b->head.invalid & BLOB_INVALID_ESNAP) || a->value_len != 8)
        return BLOB_ID_NONE;
    return le64_at(a->value);
}

void blob_flags_apply(struct blob *b)
{
    b->rle = !(b->head.invalid & BLOB_INVALID_TABLE);
    __atomic_store_n(&b->parent_id, blob_parent_id(b), __ATOMIC_RELAXED);
    __atomic_store_n(&b->read_only, b->head.data_ro != 0, __ATOMIC_RELAXED);
    __atomic_store_n(&b->on_esnap, (b->head.invalid & BLOB_INVALID_ESNAP) != 0, __ATOMIC_RELEASE);
    b->md_read_only = b->read_only || (b->head.md_ro & ~(uint64_t)BLOB_MD_RO_KNOWN) != 0;
}

/* A blob that stands on another has to say on which. */
static int parent_check(const struct blob *b)
{
    const struct blob_attr *a = blob_head_find(&b->head, true, BLOB_X_SNAP);

    return a == NULL || a->value_len == 8 ? 0 : -EBADMSG;
}

static int parse(struct rt_task *t, struct blob *b)
{
    struct blob_store *bs = b->bs;
    struct blob_parse p = {
        .id = b->id, .md_len = bs->super.md_len, .total_clusters = bs->total_clusters};
    int rc = chain_read(t, b, &p);

    if (rc == 0)
        rc = leaves_read(t, b, &p);
    if (rc == 0) {
        b->head = p.head;
        b->map = p.map;
        b->unknown = p.unknown;
        p.head = (struct blob_head){0};
        p.map = NULL;
        blob_flags_apply(b);
        rc = clusters_check(b);
        if (rc == 0)
            rc = parent_check(b);
    }
    blob_parse_fini(&p);
    return rc;
}

int blob_md_parse(struct rt_task *t, struct blob_store *bs, uint64_t id, struct blob **out_b)
{
    struct blob *b;
    int rc;

    if (!blob_id_valid(id, bs->super.md_len))
        return -ENOENT;
    b = calloc(1, sizeof(*b));
    if (b == NULL)
        return -ENOMEM;
    b->bs = bs;
    b->id = id;
    rc = parse(t, b);
    if (rc < 0) {
        blob_free(b);
        return rc;
    }
    *out_b = b;
    return 0;
}
