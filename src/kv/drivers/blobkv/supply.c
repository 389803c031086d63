/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supplier: keeps a few segments ready ahead of need, so that no commit waits for a change of
 * the blobstore's metadata; writes zeroes over what a file has never written, since a flush that
 * has to allocate in the file system is many times slower; and gives clusters back when more are
 * free than the store will need soon.
 */
#include "kv/drivers/blobkv/blobkv.h"

#include "base/log.h"

#define READY_BYTES (32 * MIB)
#define READY_MIN 3u
#define ALLOC_RUN 8u /* segments that get their clusters in one change */
#define ZERO_BYTES (256 * KIB)
#define ZERO_IOVS 4u
#define RELEASE_KEEP_BYTES (64 * MIB) /* free, but not given back */

static uint32_t ahead(const struct bkv *s)
{
    uint32_t n = (uint32_t)(READY_BYTES / s->segment_bytes);

    return MIN(MAX(n, READY_MIN), MAX(s->nsegs / 32, READY_MIN));
}

/* How many are to be ready for log and index: with zeroes in them, where that is of use. */
static uint32_t log_target(const struct bkv *s)
{
    /* Who stores one value and leaves shall not pay for more than one segment. */
    uint32_t n = s->quiet ? 1 : MIN(ahead(s), MAX(s->opened - s->opened_large, 1u));

    n = MAX(n, bkv_space_index_reserve(s));
    return MIN(n, BKV_READY_MAX);
}

/* And for chunks of large values, where zeroes would cost as much as the chunks. */
static uint32_t large_target(const struct bkv *s)
{
    return s->quiet ? 0 : MIN(ahead(s), s->opened_large);
}

static uint32_t ready_target(const struct bkv *s)
{
    return MIN(log_target(s) + large_target(s), BKV_READY_MAX);
}

static uint32_t ready_written(const struct bkv *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->nready; i++)
        n += s->seg[s->ready[i]].written;
    return n;
}

static uint64_t clusters_of(const struct bkv *s, uint32_t segs)
{
    return (uint64_t)segs * (s->segment_bytes / s->cluster_bytes);
}

/* The first usable segment: one that has clusters, or, in *out_bare, one that has to be given them,
 * rather one that may have them already. */
static uint32_t find_usable(const struct bkv *s, uint32_t *out_bare)
{
    *out_bare = 0;
    for (uint32_t i = 1; i < s->nsegs; i++) {
        const struct bkv_seg *g = &s->seg[i];

        if (!bkv_seg_usable(s, g))
            continue;
        if (g->allocated && g->known)
            return i;
        if (*out_bare == 0 || (g->allocated && !s->seg[*out_bare].allocated))
            *out_bare = i;
    }
    return 0;
}

static bool is_bare(const struct bkv *s, const struct bkv_seg *g)
{
    return bkv_seg_usable(s, g) && !(g->allocated && g->known);
}

/* How long the run of bare segments is that begins at `first`, with so many new ones at most:
 * those that may have clusters already need none of what is free. */
static uint32_t bare_run(const struct bkv *s, uint32_t first, uint32_t max_new, uint32_t *out_new)
{
    uint32_t n = 0;

    *out_new = 0;
    while (n < ALLOC_RUN && first + n < s->nsegs && is_bare(s, &s->seg[first + n])) {
        uint32_t more = !s->seg[first + n].allocated;

        if (*out_new + more > max_new)
            break;
        *out_new += more;
        n++;
    }
    return n;
}

/* Gives clusters to the run of bare segments that begins at `first`. */
static int allocate_run(struct rt_task *t, struct bkv *s, uint32_t first)
{
    uint32_t n, wanted, share;
    int rc;

    (void)bare_run(s, first, ALLOC_RUN, &wanted);
    share = bkv_share_take(s, wanted);
    n = bare_run(s, first, share, &wanted);
    rc = n == 0 ? -ENOSPC : blob_allocate(t, s->blob, clusters_of(s, first), clusters_of(s, n));
    if (rc == -ENOSPC && n > 1) {
        n = 1;
        rc = blob_allocate(t, s->blob, clusters_of(s, first), clusters_of(s, n));
    }
    if (n > 0)
        s->alloc_failed = rc == -ENOSPC;
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        struct bkv_seg *g = &s->seg[first + i];

        g->written = !s->prepare || (g->allocated && g->written);
        g->allocated = g->known = true;
    }
    bkv_share_taken(s, share);
    return rc;
}

/* Writes zeroes over a segment. */
static int prepare(struct rt_task *t, struct bkv *s, uint32_t idx, const uint8_t *zeroes)
{
    struct iovec iov[ZERO_IOVS];
    uint64_t addr = (uint64_t)idx << s->segment_shift;

    for (unsigned i = 0; i < ZERO_IOVS; i++)
        iov[i] = (struct iovec){.iov_base = (void *)zeroes, .iov_len = ZERO_BYTES};
    for (uint32_t off = 0; off < s->segment_bytes;) {
        uint32_t len = MIN(s->segment_bytes - off, (uint32_t)ZERO_BYTES * ZERO_IOVS);
        struct blob_req req = {
            .op = BLOB_WRITE,
            .iov = iov,
            .iovcnt = (unsigned)((len + ZERO_BYTES - 1) / ZERO_BYTES),
            .off_bytes = addr + off,
            .len_bytes = len,
            .blob = s->blob,
        };
        int rc;

        rt_req_init_task(&req.req, t);
        blob_submit(s->chan, &req);
        rc = rt_wait(t, &req.req);
        if (rc < 0)
            return rc;
        s->stats.prepared_bytes += len;
        off += len;
    }
    s->seg[idx].written = true;
    return 0;
}

/* One more segment ready. 0; -ENOSPC none can be had now; or what failed. */
static int supply_one(struct rt_task *t, struct bkv *s, const uint8_t *zeroes)
{
    uint32_t written = ready_written(s);
    /* Those for chunks first: these take what is ready for the log if there is nothing else. */
    bool for_log = written < log_target(s) && s->nready - written >= large_target(s);
    uint32_t bare;
    uint32_t idx = find_usable(s, &bare);
    int rc = 0;

    if (idx == 0 && bare == 0)
        return -ENOSPC;
    if (idx == 0) {
        s->supplying = 1;
        rc = allocate_run(t, s, bare);
        s->supplying = 0;
        if (rc < 0)
            return rc;
        idx = bare;
    }
    s->seg[idx].state = BKV_SEG_READY;
    s->supplying = 1;
    bkv_cache_drop(s->cache, (uint64_t)idx << s->segment_shift, s->segment_bytes);
    /* Nobody waits for the zeroes if nothing else is ready. */
    if (!s->seg[idx].written && for_log && s->nready > 0)
        rc = prepare(t, s, idx, zeroes);
    s->supplying = 0;
    if (rc == 0) {
        s->ready[s->nready++] = idx;
        bkv_space_wake(s);
    } else {
        s->seg[idx].state = BKV_SEG_FREE;
    }
    return rc;
}

/* --- giving back ------------------------------------------------------------------------------ */

static uint32_t spare_segments(const struct bkv *s)
{
    uint32_t n = 0;

    for (uint32_t i = 1; i < s->nsegs; i++)
        n += bkv_seg_usable(s, &s->seg[i]) && s->seg[i].allocated;
    return n;
}

/* Gives the clusters of one run of free segments back, from the end of the blob on. */
static int release_run(struct rt_task *t, struct bkv *s, uint32_t max)
{
    uint32_t last = s->nsegs - 1, n = 0;
    int rc;

    while (last > 0 && !(bkv_seg_usable(s, &s->seg[last]) && s->seg[last].allocated))
        last--;
    while (n < max && n < last && bkv_seg_usable(s, &s->seg[last - n]) &&
           s->seg[last - n].allocated)
        n++;
    if (n == 0)
        return 0;
    /* Not to be chosen while the blobstore works on it. */
    for (uint32_t i = 0; i < n; i++)
        s->seg[last - i].readers++;
    rc = blob_release(t, s->blob, clusters_of(s, last - n + 1), clusters_of(s, n));
    for (uint32_t i = 0; i < n; i++) {
        s->seg[last - i].readers--;
        if (rc == 0)
            s->seg[last - i].allocated = s->seg[last - i].written = false;
    }
    if (rc == 0)
        s->stats.segments_released += n;
    return rc;
}

/* Segments that were made ready when there was more to do. */
static void unready(struct bkv *s)
{
    while (s->nready > ready_target(s))
        s->seg[s->ready[--s->nready]].state = BKV_SEG_FREE;
}

/* More than a tenth of what lives, and at least 64 MiB, is free with its clusters: back to half.
 * When nobody writes, a sixteenth is too much. */
static int give_back(struct rt_task *t, struct bkv *s)
{
    uint64_t keep = MAX(bkv_space_live(s, NULL) / 10, (uint64_t)RELEASE_KEEP_BYTES / s->nshards);
    uint32_t limit = (uint32_t)(keep / s->segment_bytes) + ready_target(s);
    uint32_t spare, before, left = limit / 2;
    int rc = 0;

    if (s->quiet) {
        unready(s);
        limit = (uint32_t)(bkv_space_live(s, NULL) / 16 / s->segment_bytes);
        left = limit / 2;
    }
    if (bkv_share_is_short(s))
        limit = left = MIN(limit, bkv_space_reserve(s, BKV_NEED_DATA) + ready_target(s));
    spare = before = spare_segments(s);
    if (spare <= limit)
        return 0;
    while (rc == 0 && spare > left && !s->stopped) {
        rc = release_run(t, s, MIN(spare - left, 64u));
        if (rc == 0 && spare == spare_segments(s))
            break;
        spare = spare_segments(s);
    }
    if (spare < before)
        bkv_share_given(s);
    return rc;
}

int bkv_supplier(struct rt_task *t, void *store)
{
    struct bkv *s = store;
    CLEANUP(free_p) uint8_t *zeroes = aligned_alloc(4096, ZERO_BYTES);

    rt_task_shield(t, true);
    if (zeroes != NULL)
        memset(zeroes, 0, ZERO_BYTES);
    else
        s->prepare = false;
    while (!s->stopped) {
        int rc = 0;

        s->supply_due = false;
        while (rc == 0 && !s->stopped && s->nready < ready_target(s))
            rc = supply_one(t, s, zeroes);
        if (rc == 0)
            rc = give_back(t, s);
        if (rc < 0 && rc != -ENOSPC && s->poison == 0)
            (void)bkv_poison(s, rc, "making room");
        bkv_space_wake(s);
        while (!s->stopped && !s->supply_due)
            (void)rt_cond_wait(t, &s->supply_wanted);
    }
    bkv_task_ended(s);
    return 0;
}
