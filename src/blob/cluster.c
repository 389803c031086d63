/* SPDX-License-Identifier: Apache-2.0 */
/* Taking clusters from the store and giving them back, as runs. */
#include "blob/internal.h"

static int run_add(struct blob_run **run, unsigned *n, struct blob_run r)
{
    struct blob_run *last = *n > 0 ? &(*run)[*n - 1] : NULL;
    struct blob_run *more = *run;

    if (last != NULL && last->idx + last->n == r.idx && last->cluster + last->n == r.cluster &&
        last->n + r.n > last->n) {
        last->n += r.n;
        return 0;
    }
    if ((*n & (*n - 1)) == 0)
        more = realloc(*run, (*n == 0 ? 1 : 2 * (size_t)*n) * sizeof(*more));
    if (more == NULL)
        return -ENOMEM;
    *run = more;
    more[(*n)++] = r;
    return 0;
}

int blob_take_clusters(struct blob_store *bs, uint64_t n, struct blob_run **out_run,
                       unsigned *out_nruns)
{
    struct blob_run *run = NULL;
    unsigned nruns = 0;
    uint64_t got;

    if (blob_mask_free(&bs->clusters) < n)
        return -ENOSPC;
    for (uint64_t done = 0; done < n; done += got) {
        uint64_t first = blob_mask_take_run(&bs->clusters, n - done, &got);
        struct blob_run r = {.idx = done, .n = (uint32_t)got, .cluster = (uint32_t)first};

        must(first != BLOB_MASK_NONE);
        if (run_add(&run, &nruns, r) < 0) {
            blob_free_clusters(bs, &r, 1);
            blob_free_clusters(bs, run, nruns);
            free(run);
            return -ENOMEM;
        }
    }
    *out_run = run;
    *out_nruns = nruns;
    return 0;
}

void blob_free_clusters(struct blob_store *bs, const struct blob_run *run, unsigned nruns)
{
    for (unsigned i = 0; i < nruns; i++) {
        for (uint32_t n = 0; n < run[i].n; n++)
            must(blob_mask_clear(&bs->clusters, run[i].cluster + n));
    }
}

void blob_clear_clusters(struct rt_task *t, const struct blob *b, const struct blob_run *run,
                         unsigned nruns)
{
    struct blob_store *bs = b->bs;
    uint64_t how = b->head.md_ro & BLOB_MD_RO_CLEAR_MASK;

    for (unsigned i = 0; i < nruns && how != BLOB_CLEAR_NONE; i++) {
        uint64_t lba = blob_cluster_lba(bs, run[i].cluster);
        uint64_t n = run[i].n * blob_cluster_blocks(bs);

        if (how == BLOB_CLEAR_ZEROES)
            blk_zero(t, bs->blk, lba, n, 0);
        else
            blk_unmap(t, bs->blk, lba, n);
    }
}

int blob_runs_from(const struct blob_map *m, uint64_t idx, uint64_t end, struct blob_run **out_run,
                   unsigned *out_nruns)
{
    struct blob_run *run = NULL;
    unsigned nruns = 0;

    for (end = MIN(end, m->nclusters); idx < end; idx++) {
        uint32_t cluster = blob_map_get(m, idx);

        if (cluster != 0 &&
            run_add(&run, &nruns, (struct blob_run){.idx = idx, .n = 1, .cluster = cluster}) < 0) {
            free(run);
            return -ENOMEM;
        }
    }
    *out_run = run;
    *out_nruns = nruns;
    return 0;
}

/* --- for owners who allocate themselves ------------------------------------------------------- */

struct range {
    struct blob *b;
    uint64_t first, n;
};

/* Distributes the taken clusters over the places of the range that have none. */
static int fill_gaps(const struct range *r, const struct blob_run *taken, struct blob_run **out_run,
                     unsigned *out_nruns)
{
    uint32_t used = 0;

    for (uint64_t i = r->first; i < r->first + r->n; i++) {
        int rc;

        if (blob_map_get(r->b->map, i) != 0)
            continue;
        rc = run_add(out_run, out_nruns,
                     (struct blob_run){.idx = i, .n = 1, .cluster = taken->cluster + used});
        if (rc < 0)
            return rc;
        if (++used == taken->n) {
            taken++;
            used = 0;
        }
    }
    return 0;
}

static int allocate(struct rt_task *t, void *arg)
{
    const struct range *r = arg;
    struct blob_store *bs = r->b->bs;
    CLEANUP(free_p) struct blob_run *taken = NULL;
    CLEANUP(free_p) struct blob_run *run = NULL;
    struct blob_change c = {.fresh_from = UINT32_MAX};
    uint64_t missing = 0;
    unsigned ntaken = 0;
    int rc;

    if (r->first > r->b->map->nclusters || r->n > r->b->map->nclusters - r->first)
        return -ERANGE;
    if (bs->read_only || r->b->read_only)
        return -EROFS;
    for (uint64_t i = 0; i < r->n; i++)
        missing += blob_map_get(r->b->map, r->first + i) == 0;
    if (missing == 0)
        return 0;
    rc = blob_take_clusters(bs, missing, &taken, &ntaken);
    if (rc < 0)
        return rc;
    rc = fill_gaps(r, taken, &run, &c.nruns);
    c.run = run;
    if (rc == 0)
        rc = blob_change_commit(t, r->b, &c);
    if (rc < 0 && bs->failed == 0)
        blob_free_clusters(bs, taken, ntaken);
    blob_store_count(bs);
    return rc;
}

int blob_allocate(struct rt_task *t, struct blob *b, uint64_t first, uint64_t n)
{
    struct range r = {b, first, n};

    return blob_locked(t, b->bs, allocate, &r);
}

static void map_put(struct blob *b, const struct blob_run *run, unsigned nruns, bool there)
{
    for (unsigned i = 0; i < nruns; i++) {
        for (uint32_t n = 0; n < run[i].n; n++)
            blob_map_set(b->map, run[i].idx + n, there ? run[i].cluster + n : 0);
        b->nallocated += there ? run[i].n : -(uint64_t)run[i].n;
    }
}

/* The change that takes the clusters of `run` away, which the map has no more. */
static int write_gone(struct rt_task *t, struct blob *b, const struct blob_run *run, unsigned nruns)
{
    CLEANUP(free_p) struct blob_run *gone = calloc(nruns, sizeof(*gone));
    struct blob_change c = {.run = gone, .nruns = nruns, .fresh_from = UINT32_MAX};
    int rc;

    if (gone == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < nruns; i++)
        gone[i] = (struct blob_run){.idx = run[i].idx, .n = run[i].n};
    rc = blob_change_commit(t, b, &c);
    if (rc == -ENOSPC) { /* no metadata page is free: giving space back has to work all the same */
        c.in_place = true;
        rc = blob_change_commit(t, b, &c);
    }
    return rc;
}

static int release(struct rt_task *t, void *arg)
{
    const struct range *r = arg;
    struct blob *b = r->b;
    CLEANUP(free_p) struct blob_run *run = NULL;
    unsigned nruns = 0;
    int rc;

    if (!(b->head.invalid & BLOB_INVALID_THIN) || b->parent != NULL ||
        (b->head.invalid & BLOB_INVALID_ESNAP))
        return -EINVAL;
    if (r->first > b->map->nclusters || r->n > b->map->nclusters - r->first)
        return -ERANGE;
    if (b->bs->read_only || b->read_only)
        return -EROFS;
    rc = blob_runs_from(b->map, r->first, r->first + r->n, &run, &nruns);
    if (rc < 0 || nruns == 0)
        return rc;
    /* First nobody finds them, then nobody is at them, then they are not the blob's. */
    map_put(b, run, nruns, false);
    rc = blob_quiesce(t, b->bs);
    if (rc == 0)
        rc = write_gone(t, b, run, nruns);
    if (rc < 0) {
        map_put(b, run, nruns, true);
        return rc;
    }
    blob_clear_clusters(t, b, run, nruns);
    blob_free_clusters(b->bs, run, nruns);
    blob_store_count(b->bs);
    return 0;
}

int blob_release(struct rt_task *t, struct blob *b, uint64_t first, uint64_t n)
{
    struct range r = {b, first, n};

    return blob_locked(t, b->bs, release, &r);
}
