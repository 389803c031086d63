/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/snap.h"

#include "kv/drivers/blobkv/large.h"

#include "base/log.h"

/* --- how long one lasts ----------------------------------------------------------------------- */

/* Nobody goes through it any more: what it kept is let go of. */
static void let_go(struct bkv_snap *snap)
{
    if (snap->tree != NULL) {
        bkv_tree_put(take_ptr(&snap->tree));
        bkv_release(snap->s, &snap->hold);
    }
    if (snap->closed)
        free(snap);
}

/* Operations that are under way in it may end. */
static void expire(struct bkv_snap *snap)
{
    snap->s->stats.snapshots_stale++;
    snap->stale = true;
    if (snap->users == 0)
        let_go(snap);
}

static bool too_old(const struct bkv_snap *snap)
{
    uint64_t max = snap->s->opts.snapshot_max_age_ns;

    return max != 0 && rt_now() - snap->opened_ns > max;
}

/* Bytes of segments in which nothing lives, and which nobody but snapshots keeps. */
static uint64_t pinned_bytes(const struct bkv *s, const struct bkv_snap *oldest)
{
    uint64_t n = 0;

    for (uint32_t i = 1; i < s->nsegs; i++)
        n += s->seg[i].state == BKV_SEG_FREE && s->seg[i].freed_at > oldest->hold.stamp;
    return n * s->segment_bytes;
}

void bkv_snaps_trim(struct bkv *s)
{
    uint64_t max = s->opts.snapshot_pin_bytes;
    struct bkv_snap *oldest;

    if (max == 0)
        max = (uint64_t)s->nsegs * s->segment_bytes / 4 / s->nshards;
    list_for_each (oldest, &s->snaps, struct bkv_snap, link) {
        uint64_t pinned;

        if (oldest->stale)
            continue;
        pinned = pinned_bytes(s, oldest);
        if (!too_old(oldest) && pinned <= max)
            return;
        log_warn("%s: a snapshot has gone stale: %s", s->name,
                 pinned > max ? "it kept too much (snapshot_pin=)" : "its time is up");
        expire(oldest);
    }
}

void bkv_snaps_fini(struct bkv *s)
{
    while (!list_empty(&s->snaps)) {
        struct bkv_snap *snap = list_first(&s->snaps, struct bkv_snap, link);

        list_del(&snap->link);
        bkv_tree_put(snap->tree);
        free(snap);
    }
}

int bkv_snap_enter(struct bkv_snap *snap)
{
    if (!snap->stale && too_old(snap))
        expire(snap);
    if (snap->stale)
        return -ESTALE;
    snap->users++;
    return 0;
}

void bkv_snap_leave(struct bkv_snap *snap)
{
    must(snap->users > 0);
    if (--snap->users == 0 && (snap->stale || snap->closed))
        let_go(snap);
}

/* --- open and close --------------------------------------------------------------------------- */

static int make(struct rt_task *t, struct bkv *s, struct bkv_stop *stop, void (*at)(void *arg),
                void *arg, struct bkv_snap **out_snap)
{
    CLEANUP(free_p) struct bkv_snap *snap = calloc(1, sizeof(*snap));
    int rc;

    if (snap == NULL)
        return -ENOMEM;
    snap->s = s;
    snap->opened_ns = rt_now();
    list_init(&snap->link);
    snap->present = s->opts.read_only;
    if (!snap->present) {
        rc = at != NULL ? bkv_checkpoint_seen(t, s, &snap->hold, &snap->tree, at, arg)
                        : bkv_checkpoint_at(t, s, &snap->hold, &snap->tree, stop);
        if (rc < 0)
            return rc;
        list_add_tail(&s->snaps, &snap->link);
    }
    s->stats.snapshots++;
    *out_snap = take_ptr(&snap);
    return 0;
}

int bkv_snap_make(struct rt_task *t, struct bkv *s, struct bkv_stop *stop,
                  struct bkv_snap **out_snap)
{
    return make(t, s, stop, NULL, NULL, out_snap);
}

int bkv_snap_take(struct rt_task *t, struct bkv *s, void (*at)(void *arg), void *arg,
                  struct bkv_snap **out_snap)
{
    return make(t, s, NULL, at, arg, out_snap);
}

static int open_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = bkv_of(kv);
    struct bkv_snap *snap;
    int rc;

    rt_task_shield(t, true);
    rc = bkv_snap_make(t, s, NULL, &snap);
    if (rc == 0)
        kv->snap = (struct kv_snap *)snap;
    kv_complete(kv, rc);
    bkv_task_ended(s);
    return 0;
}

void bkv_snap_end(struct bkv_snap *snap)
{
    list_del(&snap->link);
    list_init(&snap->link);
    snap->closed = true;
    if (snap->users == 0)
        let_go(snap);
}

void bkv_snap_submit(struct bkv *s, struct kv_req *kv)
{
    int rc;

    if (kv->op == KV_SNAP_CLOSE) {
        bkv_snap_end((struct bkv_snap *)kv->snap);
        kv_complete(kv, 0);
        return;
    }
    rc = bkv_task(s, "blobkv snapshot", open_task, kv);
    if (rc < 0)
        kv_complete(kv, rc);
}

/* --- gets ------------------------------------------------------------------------------------- */

int bkv_snap_read_key(struct rt_task *t, struct bkv *s, struct bkv_snap *snap, struct bytes key,
                      struct bkv_place *out_place, struct rt_buf **out_buf,
                      struct bkv_record_out *out)
{
    int rc;

    if (snap == NULL)
        return bkv_read_key(t, s, key, out_place, out_buf, out);
    rc = bkv_tree_find(t, snap->tree, key, out_place, NULL);
    return rc < 0 ? rc : bkv_read_place(t, s, out_place, key, out_buf, out);
}

static void take_stat(struct kv_req *kv, const struct bkv_place *place)
{
    kv->value_len = place->value_len;
    kv->version = place->seq;
}

/* What is in memory: 0 and done, -ENOENT, or -EAGAIN. */
static int get_cached(struct bkv *s, struct bkv_snap *snap, struct kv_req *kv)
{
    struct bkv_record_out rec;
    struct bkv_place place;
    struct bytes obj;
    int rc = bkv_tree_find_cached(snap->tree, kv->key, &place);

    if (rc < 0)
        return rc;
    if (kv->op == KV_STAT) {
        take_stat(kv, &place);
        return 0;
    }
    obj = bkv_cache_get(s->cache, place.addr);
    if (obj.len == 0 || place.type == BKV_LARGE_VALUE)
        return -EAGAIN;
    bkv_record_view(obj.ptr, &rec);
    return bkv_get_deliver(s, kv, &rec);
}

static int get(struct rt_task *t, struct bkv *s, struct bkv_snap *snap, struct kv_req *kv)
{
    CLEANUP(rt_buf_put_p) struct rt_buf *buf = NULL;
    struct bkv_record_out rec;
    struct bkv_place place;
    int rc;

    if (kv->op == KV_STAT) {
        rc = bkv_tree_find(t, snap->tree, kv->key, &place, NULL);
        if (rc == 0)
            take_stat(kv, &place);
        return rc;
    }
    rc = bkv_snap_read_key(t, s, snap, kv->key, &place, &buf, &rec);
    if (rc < 0)
        return rc;
    if (rec.type == BKV_LARGE_VALUE)
        return bkv_large_get(t, s, kv, &rec);
    bkv_cache_put(s->cache, place.addr,
                  bytes_make(buf->data + place.addr % s->sector_bytes, place.rec_len));
    return bkv_get_deliver(s, kv, &rec);
}

static int get_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = bkv_of(kv);
    struct bkv_snap *snap = bkv_snap_of(kv);
    int rc;

    rt_task_shield(t, true);
    rc = get(t, s, snap, kv);
    bkv_snap_leave(snap);
    kv_complete(kv, rc);
    bkv_task_ended(s);
    return 0;
}

void bkv_snap_get_submit(struct bkv *s, struct kv_req *kv)
{
    struct bkv_snap *snap = bkv_snap_of(kv);
    int rc = bkv_snap_enter(snap);

    if (rc < 0) {
        kv_complete(kv, rc);
        return;
    }
    rc = get_cached(s, snap, kv);
    if (rc == -EAGAIN) {
        rc = bkv_task(s, "blobkv snapshot get", get_task, kv);
        if (rc == 0)
            return;
    }
    bkv_snap_leave(snap);
    kv_complete(kv, rc);
}
