/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first write to a cluster of a thin blob, on the home reactor. The new cluster is filled
 * whole (what the blob showed there, and the data of the write), that is made durable, and only
 * then the metadata names it: after a crash the blob shows the old content or the new, never what
 * somebody else had left in the cluster. Those that wait while one is at it are done together, with
 * one flush.
 */
#include "blob/slow.h"

#include "base/bytes.h"
#include "base/plant.h"

/* Without a buffer of the reactor's: who has them all may be waiting for the lock. */
static int esnap_read(struct rt_task *t, struct blk_dev *esnap, uint64_t off, uint8_t *out,
                      size_t len)
{
    const struct blk_info *info = blk_info(esnap);
    uint64_t size = info->nblocks * info->block_bytes;
    size_t there = off < size ? MIN(len, size - off) : 0;
    struct blk_chan *chan;
    int rc;

    memset(out + there, 0, len - there);
    if (there == 0)
        return 0;
    rc = blk_chan_get(t, esnap, &chan);
    if (rc < 0)
        return rc;
    rc = blk_read(t, chan, out, off / info->block_bytes, (uint32_t)(there / info->block_bytes));
    blk_chan_put(t, chan);
    return rc;
}

/* Bytes [from, from + len) of a cluster of the blob as it reads now go to the new cluster. */
static int copy_below(struct rt_task *t, const struct blob_first *w, uint32_t from, uint32_t len)
{
    struct blob_store *bs = w->blob->bs;
    struct blob_place place = blob_locate(w->blob, w->idx);
    uint64_t to = blob_cluster_lba(bs, w->cluster);
    uint32_t step;
    int rc = 0;

    if (len == 0)
        return 0;
    if (place.where == BLOB_AT_NONE)
        return blk_zero(t, bs->blk, to + (from >> bs->block_shift), len >> bs->block_shift,
                        BLK_F_UNMAP);
    if (place.where == BLOB_AT_ESNAP && place.esnap == NULL)
        return -ENODEV;
    for (uint32_t end = from + len; from < end && rc == 0; from += step) {
        uint32_t at = from >> bs->block_shift;

        step = (uint32_t)MIN(end - from, BLOB_IO_BYTES);
        if (place.where == BLOB_AT_ESNAP)
            rc = esnap_read(t, place.esnap, w->idx * bs->super.cluster_bytes + from, bs->io, step);
        else
            rc = blk_read(t, bs->blk, bs->io, blob_cluster_lba(bs, place.cluster) + at,
                          step >> bs->block_shift);
        if (rc == 0)
            rc = blk_write(t, bs->blk, bs->io, to + at, step >> bs->block_shift, 0);
    }
    return rc;
}

/* The data of the write, through the home's buffer: it may be in any number of parts. */
static int put_data(struct rt_task *t, const struct blob_first *w)
{
    struct blob_store *bs = w->blob->bs;
    uint64_t to = blob_cluster_lba(bs, w->cluster) + (w->off_bytes >> bs->block_shift);
    uint32_t step;
    int rc = 0;

    if (w->len_bytes == 0)
        return 0;
    if (w->iov == NULL)
        return blk_zero(t, bs->blk, to, w->len_bytes >> bs->block_shift, BLK_F_UNMAP);
    for (uint32_t done = 0; done < w->len_bytes && rc == 0; done += step) {
        step = (uint32_t)MIN(w->len_bytes - done, BLOB_IO_BYTES);
        iov_copy_out(w->iov, w->iovcnt, w->iov_off + done, bs->io, step);
        rc = blk_write(t, bs->blk, bs->io, to + (done >> bs->block_shift), step >> bs->block_shift,
                       0);
    }
    return rc;
}

/* Takes and fills a cluster. 1: done, the metadata has to follow; 0: nothing to do; an errno. */
static int fill(struct rt_task *t, struct blob_first *w)
{
    struct blob_store *bs = w->blob->bs;
    uint32_t end = w->off_bytes + w->len_bytes;
    uint64_t cluster;
    int rc;

    cluster = blob_mask_take(&bs->clusters);
    if (cluster == BLOB_MASK_NONE)
        return -ENOSPC;
    w->cluster = (uint32_t)cluster;
    rc = copy_below(t, w, 0, w->off_bytes);
    if (rc == 0)
        rc = copy_below(t, w, end, bs->super.cluster_bytes - end);
    if (rc == 0)
        rc = put_data(t, w);
    if (rc == 0)
        return 1;
    blob_mask_clear(&bs->clusters, w->cluster);
    w->cluster = 0;
    return rc;
}

static int begin(struct rt_task *t, struct blob_first *w)
{
    struct blob *b = w->blob;

    if (w->idx >= b->map->nclusters)
        return -ERANGE;
    if (b->read_only)
        return -EROFS;
    if (b->bs->failed < 0)
        return -EIO;
    if (blob_map_get(b->map, w->idx) != 0)
        return 0;
    if (w->iov == NULL && blob_locate(b, w->idx).where == BLOB_AT_NONE)
        return 1; /* reads as zeroes as it is */
    return fill(t, w);
}

/* Those of one blob, from the i-th on, into one change. */
static int commit(struct rt_task *t, struct blob_first **all, unsigned n, unsigned i, bool ordered)
{
    struct blob_run run[BLOB_TOGETHER];
    struct blob *b = all[i]->blob;
    struct blob_change c = {.run = run,
                            .fresh_from = UINT32_MAX,
                            .in_place = true,
                            .ordered = ordered && !(PLANTED("blob-external-order") && b->on_esnap),
                            .lazy = true};
    int rc;

    for (unsigned k = i; k < n; k++) {
        unsigned at = c.nruns;

        if (all[k]->blob != b || all[k]->cluster == 0)
            continue;
        for (; at > 0 && run[at - 1].idx > all[k]->idx; at--)
            run[at] = run[at - 1];
        run[at] = (struct blob_run){.idx = all[k]->idx, .n = 1, .cluster = all[k]->cluster};
        c.nruns++;
    }
    rc = blob_change_commit(t, b, &c);
    for (unsigned k = i; k < n; k++) {
        if (all[k]->blob != b || all[k]->cluster == 0)
            continue;
        if (rc < 0 && b->bs->failed == 0)
            blob_mask_clear(&b->bs->clusters, all[k]->cluster);
        all[k]->rc = rc < 0 ? rc : 1;
        all[k]->cluster = 0;
    }
    return rc;
}

static bool same_place(struct blob_first *const *all, unsigned n, const struct blob_first *w)
{
    for (unsigned i = 0; i < n; i++) {
        if (all[i]->blob == w->blob && all[i]->idx == w->idx)
            return true;
    }
    return false;
}

static int first_home(struct rt_task *t, void *arg)
{
    struct blob_first *mine = arg, *all[BLOB_TOGETHER], *w;
    struct blob_store *bs = mine->blob->bs;
    bool ordered = true;
    unsigned n = 0;

    if (mine->over)
        return mine->rc;
    list_del(&mine->link);
    list_add_head(&bs->first_writes, &mine->link);
    while (n < BLOB_TOGETHER &&
           (w = list_pop_entry(&bs->first_writes, struct blob_first, link)) != NULL) {
        w->over = true;
        w->rc = same_place(all, n, w) ? 0 : begin(t, w);
        all[n++] = w;
    }
    for (unsigned i = 0; i < n; i++) {
        if (all[i]->cluster != 0 && commit(t, all, n, i, ordered) == 0)
            ordered = false;
    }
    blob_store_count(bs);
    return mine->rc;
}

static int enqueue(struct rt_task *t, void *arg)
{
    struct blob_first *w = arg;

    list_add_tail(&w->blob->bs->first_writes, &w->link);
    return blob_locked(t, w->blob->bs, first_home, w);
}

int blob_first_write(struct rt_task *t, struct blob_first *w)
{
    int rc;

    w->cluster = 0;
    w->over = false;
    rc = rt_on(t, w->blob->bs->home, enqueue, w);
    return rc;
}

/* --- copying up ------------------------------------------------------------------------------- */

/* Whether there is anything at this place below the direct parent. */
bool blob_shows_below(const struct blob *parent, uint64_t idx)
{
    if (parent->head.invalid & BLOB_INVALID_ESNAP)
        return true;
    return parent->parent != NULL && blob_locate(parent->parent, idx).where != BLOB_AT_NONE;
}

/*
 * Decoupled from its direct parent the blob needs what that one has; and zeroes beyond that one's
 * end where something further below would show.
 */
bool blob_wanted(const struct blob *b, uint64_t idx, bool direct)
{
    if (blob_map_get(b->map, idx) != 0)
        return false;
    if (!direct || b->parent == NULL)
        return true;
    if (idx < b->parent->map->nclusters)
        return blob_map_get(b->parent->map, idx) != 0;
    return blob_shows_below(b->parent, idx);
}

int blob_copy_up(struct rt_task *t, struct blob *b, uint64_t first, uint64_t n, bool direct)
{
    CLEANUP(free_p) struct blob_first *w = calloc(BLOB_TOGETHER, sizeof(*w));
    struct blob_first *all[BLOB_TOGETHER];
    unsigned nall = 0;
    int rc = 0;

    must(n <= BLOB_TOGETHER);
    if (w == NULL)
        return -ENOMEM;
    for (uint64_t i = first; i < MIN(first + n, b->map->nclusters) && rc >= 0; i++) {
        if (!blob_wanted(b, i, direct))
            continue;
        w[nall] = (struct blob_first){.blob = b, .idx = i};
        rc = fill(t, &w[nall]);
        all[nall] = &w[nall];
        nall += rc == 1;
    }
    if (nall > 0) {
        int done = commit(t, all, nall, 0, true);

        rc = MIN(rc, done);
    }
    blob_store_count(b->bs);
    return MIN(rc, 0);
}
