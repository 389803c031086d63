/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes of blobs, and their end. */
#include "blob/internal.h"

struct resizing {
    struct blob *b;
    uint64_t clusters;
};

/* What a thick blob gets: zeroes, in clusters behind those it has. */
static int grow_thick(struct rt_task *t, struct blob *b, struct blob_map *to, struct blob_run **run,
                      unsigned *nruns)
{
    struct blob_store *bs = b->bs;
    uint64_t from = b->map->nclusters;
    int rc = 0;

    for (uint64_t i = from; i < to->nclusters && rc == 0; i++)
        rc = blob_map_reserve(to, i);
    if (rc == 0)
        rc = blob_take_clusters(bs, to->nclusters - from, run, nruns);
    for (unsigned i = 0; i < *nruns && rc == 0; i++) {
        const struct blob_run *r = &(*run)[i];

        for (uint32_t n = 0; n < r->n; n++)
            blob_map_set(to, from + r->idx + n, r->cluster + n);
        if ((b->head.md_ro & BLOB_MD_RO_CLEAR_MASK) != BLOB_CLEAR_NONE)
            rc = blk_zero(t, bs->blk, blob_cluster_lba(bs, r->cluster),
                          r->n * blob_cluster_blocks(bs), BLK_F_UNMAP);
    }
    return rc;
}

static int grow(struct rt_task *t, struct blob *b, struct blob_map *to)
{
    CLEANUP(free_p) struct blob_run *run = NULL;
    struct blob_change c = {.map = to,
                            .fresh_from = (uint32_t)(b->map->nclusters / BLOB_LEAF_CLUSTERS),
                            .ordered = true};
    unsigned nruns = 0;
    int rc = 0;

    if (!(b->head.invalid & BLOB_INVALID_THIN))
        rc = grow_thick(t, b, to, &run, &nruns);
    if (rc == 0)
        rc = blob_change_commit(t, b, &c);
    if (rc < 0) {
        blob_map_free(to);
        if (b->bs->failed == 0)
            blob_free_clusters(b->bs, run, nruns);
    }
    blob_store_count(b->bs);
    return rc;
}

static int shrink(struct rt_task *t, struct blob *b, struct blob_map *to)
{
    CLEANUP(free_p) struct blob_run *run = NULL;
    struct blob_change c = {.map = to, .fresh_from = UINT32_MAX};
    unsigned nruns = 0;
    int rc = blob_runs_from(b->map, to->nclusters, b->map->nclusters, &run, &nruns);

    if (to->nclusters % BLOB_LEAF_CLUSTERS != 0)
        c.fresh_from = (uint32_t)(to->nclusters / BLOB_LEAF_CLUSTERS);
    if (rc == 0)
        rc = blob_change_commit(t, b, &c);
    if (rc < 0) {
        blob_map_free(to);
        return rc;
    }
    /* I/O under way to the clusters that are gone has to end before somebody else gets them. */
    if (blob_quiesce(t, b->bs) < 0)
        return 0;
    blob_clear_clusters(t, b, run, nruns);
    blob_free_clusters(b->bs, run, nruns);
    blob_store_count(b->bs);
    return 0;
}

static int resize_home(struct rt_task *t, void *arg)
{
    const struct resizing *r = arg;
    struct blob_map *to;

    if (r->clusters > BLOB_CLUSTERS_MAX - 1)
        return -EINVAL;
    if (r->b->md_read_only || r->b->bs->read_only)
        return -EROFS;
    if (r->clusters == r->b->map->nclusters)
        return 0;
    to = blob_map_copy(r->b->map, r->clusters, true);
    if (to == NULL)
        return -ENOMEM;
    return r->clusters > r->b->map->nclusters ? grow(t, r->b, to) : shrink(t, r->b, to);
}

int blob_resize(struct rt_task *t, struct blob *b, uint64_t clusters)
{
    struct resizing r = {b, clusters};

    return blob_locked(t, b->bs, resize_home, &r);
}

/* --- delete ----------------------------------------------------------------------------------- */

static int forget_super(struct rt_task *t, struct blob_store *bs, uint64_t id)
{
    struct blob_super s = bs->super;

    if (s.super_blob != id)
        return 0;
    s.super_blob = BLOB_ID_NONE;
    return blob_super_write(t, bs, &s);
}

/* Zeroes over the root are the end of the blob; what is left over is unreachable from then on. */
int blob_root_zero(struct rt_task *t, struct blob *b)
{
    struct blob_store *bs = b->bs;
    int rc;

    memset(bs->page, 0, sizeof(*bs->page));
    rc = blob_md_write(t, bs, (uint32_t)b->id, bs->page);
    if (rc < 0) {
        bs->failed = rc;
        return rc;
    }
    return blob_md_flush(t, bs);
}

int blob_delete_plain(struct rt_task *t, struct blob *b)
{
    CLEANUP(free_p) struct blob_run *run = NULL;
    struct blob_store *bs = b->bs;
    unsigned nruns = 0;
    int rc = blob_runs_from(b->map, 0, b->map->nclusters, &run, &nruns);

    if (rc == 0)
        rc = blob_md_dirty(t, bs);
    if (rc == 0)
        rc = forget_super(t, bs, b->id);
    if (rc == 0)
        rc = blob_root_zero(t, b);
    if (rc < 0)
        return rc;
    blob_mask_clear(&bs->ids, (uint32_t)b->id);
    must(blob_mask_clear(&bs->pages, (uint32_t)b->id));
    blob_md_zero(t, bs, b->chain, b->nchain);
    for (unsigned i = 0; i < b->nchain; i++)
        must(blob_mask_clear(&bs->pages, b->chain[i]));
    for (uint32_t i = 0; i < b->map->nleaves; i++) {
        if (b->map->page[i] == 0)
            continue;
        blob_md_zero(t, bs, &b->map->page[i], 1);
        must(blob_mask_clear(&bs->pages, b->map->page[i]));
    }
    blob_clear_clusters(t, b, run, nruns);
    blob_free_clusters(bs, run, nruns);
    blob_link_del(bs, b->id);
    blob_store_count(bs);
    return 0;
}

struct deleting {
    struct blob_store *bs;
    uint64_t id;
};

static int delete_home(struct rt_task *t, void *arg)
{
    const struct deleting *d = arg;
    struct blob *b;
    uint64_t clone;
    uint32_t n;
    int rc;

    if (d->bs->read_only)
        return -EROFS;
    rc = blob_get(t, d->bs, d->id, &b);
    if (rc < 0)
        return rc;
    n = blob_nclones(d->bs, d->id, &clone);
    if (b->users > 0 || n > 1)
        rc = -EBUSY;
    else
        rc = n == 1 ? blob_delete_merge(t, b, clone) : blob_delete_plain(t, b);
    blob_put(t, b);
    return rc;
}

int blob_delete(struct rt_task *t, struct blob_store *bs, uint64_t id)
{
    struct deleting d = {bs, id};

    return blob_locked(t, bs, delete_home, &d);
}
