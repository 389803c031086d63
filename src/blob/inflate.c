/* SPDX-License-Identifier: Apache-2.0 */
/* Making a clone independent of what it stands on; copying what is its own to another device. */
#include "blob/internal.h"

struct copying {
    struct blob *b;
    bool direct; /* decouple: only what the direct parent has */
    uint64_t at;
};

/* Some clusters on; 1 when the end has been reached. */
static int copy_some(struct rt_task *t, void *arg)
{
    struct copying *k = arg;
    struct blob *b = k->b;
    int rc;

    if (b->bs->read_only)
        return -EROFS;
    if (k->direct && b->parent == NULL && !(b->head.invalid & BLOB_INVALID_ESNAP))
        return -EINVAL;
    if (k->at >= b->map->nclusters)
        return 1;
    rc = blob_copy_up(t, b, k->at, BLOB_TOGETHER, k->direct);
    k->at += BLOB_TOGETHER;
    return rc;
}

static bool complete(const struct copying *k)
{
    const struct blob *b = k->b, *p = b->parent;

    if (!k->direct || p == NULL)
        return b->nallocated == b->map->nclusters;
    for (uint64_t i = 0; i < b->map->nclusters; i++) {
        if (blob_wanted(b, i, true))
            return false;
    }
    return true;
}

static int cut_loose(struct rt_task *t, struct copying *k, struct blob *grandparent,
                     struct blk_dev *esnap)
{
    struct blob *b = k->b, *below = k->direct ? b->parent : NULL;
    struct blob_head head;
    struct blob_change c = {.head = &head, .fresh_from = UINT32_MAX, .ordered = true};
    int rc = blob_head_copy(&b->head, &head);

    if (rc < 0)
        return rc;
    if (!k->direct)
        head.invalid &= ~(uint64_t)BLOB_INVALID_THIN;
    rc = blob_head_stand(&head, grandparent != NULL ? grandparent->id : BLOB_ID_NONE,
                         below != NULL ? &below->head : NULL);
    if (rc == 0)
        rc = blob_change_commit(t, b, &c);
    blob_head_fini(&head);
    if (rc < 0)
        return rc;
    if (grandparent != NULL) {
        grandparent->inside++;
        blob_link_set(b->bs, b->id, grandparent->id);
    } else {
        blob_link_del(b->bs, b->id);
    }
    blob_stand(t, b, grandparent, esnap);
    return 0;
}

/* 1: done; 0: somebody has resized the blob, or unmapped in it: once more. */
static int finish(struct rt_task *t, void *arg)
{
    struct copying *k = arg;
    struct blob *b = k->b, *p = b->parent;
    struct blk_dev *esnap = NULL;
    int rc;

    if (!complete(k)) {
        k->at = 0;
        return 0;
    }
    if (b->parent == NULL && b->esnap == NULL && !(b->head.invalid & BLOB_INVALID_THIN))
        return 1;
    if (k->direct && p != NULL && p->esnap != NULL)
        esnap = blk_ref(p->esnap);
    rc = cut_loose(t, k, k->direct && p != NULL ? p->parent : NULL, esnap);
    if (rc < 0 && esnap != NULL)
        blk_close(t, esnap);
    return rc < 0 ? rc : 1;
}

static int run(struct rt_task *t, struct copying *k, blob_progress_fn progress, void *arg)
{
    struct blob_store *bs = k->b->bs;
    int rc;

    for (;;) {
        while ((rc = blob_locked(t, bs, copy_some, k)) == 0) {
            struct blob_info info;

            blob_info(k->b, &info);
            if (progress != NULL)
                progress(arg, MIN(k->at, info.clusters), info.clusters);
            if (rt_task_cancelled(t))
                return -ECANCELED;
        }
        if (rc == 1)
            rc = blob_locked(t, bs, finish, k);
        if (rc != 0)
            return MIN(rc, 0);
    }
}

int blob_inflate(struct rt_task *t, struct blob *b, blob_progress_fn progress, void *arg)
{
    struct copying k = {.b = b};

    return run(t, &k, progress, arg);
}

int blob_decouple(struct rt_task *t, struct blob *b, blob_progress_fn progress, void *arg)
{
    struct copying k = {.b = b, .direct = true};

    return run(t, &k, progress, arg);
}

/* --- shallow copy ----------------------------------------------------------------------------- */

struct shallow {
    struct blob *b;
    struct blob_chan *from;
    struct blk_chan *to;
    struct rt_buf *buf;
    uint32_t block_bytes; /* of the target */
};

static int copy_cluster(struct rt_task *t, const struct shallow *s, uint64_t idx)
{
    uint32_t bytes = s->b->bs->super.cluster_bytes, step;
    int rc = 0;

    for (uint32_t done = 0; done < bytes && rc == 0; done += step) {
        uint64_t off = idx * bytes + done;

        step = MIN(bytes - done, s->buf->size_bytes);
        rc = blob_read(t, s->from, s->b, s->buf->data, off, step);
        if (rc == 0)
            rc = blk_write(t, s->to, s->buf->data, off / s->block_bytes, step / s->block_bytes, 0);
    }
    return rc;
}

static int copy_own(struct rt_task *t, const struct shallow *s, blob_progress_fn progress,
                    void *arg)
{
    struct blob_info info;
    uint64_t done = 0;
    int rc = 0;

    blob_info(s->b, &info);
    for (uint64_t i = 0; i < info.clusters && rc == 0; i++) {
        const struct blob_map *m = __atomic_load_n(&s->b->map, __ATOMIC_ACQUIRE);

        if (i >= m->nclusters || blob_map_get(m, i) == 0)
            continue;
        rc = copy_cluster(t, s, i);
        if (rc == 0 && progress != NULL)
            progress(arg, ++done, info.allocated_clusters);
        if (rt_task_cancelled(t))
            rc = -ECANCELED;
    }
    return rc == 0 ? blk_flush(t, s->to) : rc;
}

int blob_shallow_copy(struct rt_task *t, struct blob *b, struct blk_dev *to,
                      blob_progress_fn progress, void *arg)
{
    struct shallow s = {.b = b, .block_bytes = blk_info(to)->block_bytes};
    struct blob_info info;
    int rc;

    blob_info(b, &info);
    if (b->bs->super.cluster_bytes % s.block_bytes != 0 || RT_BUF_LARGE_BYTES % s.block_bytes != 0)
        return -EINVAL;
    if (info.len_bytes > blk_info(to)->nblocks * s.block_bytes)
        return -ENOSPC;
    rc = blob_chan_get(t, b->bs, &s.from);
    if (rc < 0)
        return rc;
    rc = blk_chan_get(t, to, &s.to);
    if (rc == 0) {
        s.buf = rt_buf_take(t, RT_BUF_LARGE_BYTES);
        rc = s.buf != NULL ? copy_own(t, &s, progress, arg) : -ECANCELED;
        if (s.buf != NULL)
            rt_buf_put(s.buf);
        blk_chan_put(t, s.to);
    }
    blob_chan_put(t, s.from);
    return rc;
}
