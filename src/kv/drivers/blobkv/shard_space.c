/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shards share the device's free clusters. Each says how many segments it may still need of them
 * to be able to checkpoint, collect and delete; what the others need so is no room for its data.
 * When little is free, each keeps no more than that, and who was refused is told of what is given
 * back.
 */
#include "kv/drivers/blobkv/shards.h"

#define SHORT_SHARE 16u /* one segment in so many free: that is little */

static uint64_t free_segments(const struct bkv *s)
{
    struct blob_store_info info;

    blob_store_info(s->lvs.bs, &info);
    return info.free_clusters / (s->segment_bytes / s->cluster_bytes);
}

/* Segments that are free and have clusters. */
static uint32_t has(const struct bkv *s)
{
    uint32_t n = s->nready + s->supplying;

    for (uint32_t i = 1; i < s->nsegs; i++)
        n += s->seg[i].allocated && bkv_seg_usable(s, &s->seg[i]);
    return n;
}

void bkv_share_tell(struct bkv *s)
{
    uint32_t want = bkv_space_reserve(s, BKV_NEED_DATA) + 1, have;

    if (s->nshards == 1 || s->opts.read_only)
        return;
    have = has(s);
    atomic_store_explicit(&s->set->wants[s->shard], want > have ? want - have : 0,
                          memory_order_relaxed);
}

/* Free segments, less `kept` and what the other shards may need. */
static uint32_t left_of(const struct bkv *s, uint64_t kept)
{
    uint64_t left;

    for (unsigned i = 0; i < s->nshards; i++) {
        if (i != s->shard)
            kept += atomic_load_explicit(&s->set->wants[i], memory_order_relaxed);
    }
    left = free_segments(s);
    return (uint32_t)MIN(left > kept ? left - kept : 0, UINT32_MAX);
}

uint32_t bkv_share_of(const struct bkv *s)
{
    if (s->alloc_failed)
        return 0;
    return s->nshards == 1 ? UINT32_MAX : left_of(s, 0);
}

uint32_t bkv_share_take(struct bkv *s, uint32_t n)
{
    uint32_t before, own, may;

    if (s->nshards == 1)
        return n;
    bkv_share_tell(s);
    own = atomic_load_explicit(&s->set->wants[s->shard], memory_order_relaxed);
    before = atomic_fetch_add(&s->set->taking, n);
    may = MIN(n, MAX(own, left_of(s, before)));
    atomic_fetch_sub(&s->set->taking, n - may);
    return may;
}

void bkv_share_taken(struct bkv *s, uint32_t n)
{
    if (s->nshards == 1)
        return;
    bkv_share_tell(s);
    atomic_fetch_sub(&s->set->taking, n);
}

bool bkv_share_is_short(const struct bkv *s)
{
    return s->nshards > 1 && free_segments(s) < s->nsegs / SHORT_SHARE;
}

/* --- asking and giving ------------------------------------------------------------------------ */

static void wake_arrives(struct rt_msg *msg)
{
    struct bkv *s = container_of(msg, struct bkv, share_msg);

    atomic_store(&s->share_sent, false);
    if (s->ntasks == 0)
        return; /* it is being opened, or has been closed meanwhile */
    bkv_share_tell(s);
    if (atomic_exchange(&s->share_given, false)) {
        s->full = s->alloc_failed = s->share_asked = false;
        bkv_space_wake(s);
    }
    bkv_supply_wake(s);
}

static void wake_others(struct bkv *s, bool given)
{
    for (unsigned i = 0; i < s->nshards; i++) {
        struct bkv *other = s->set->shard[i];

        if (other == s || other == NULL)
            continue;
        if (given)
            atomic_store(&other->share_given, true);
        if (atomic_exchange(&other->share_sent, true))
            continue;
        other->share_msg.fn = wake_arrives;
        rt_send(other->reactor, &other->share_msg);
    }
}

void bkv_share_ask(struct bkv *s)
{
    if (s->nshards == 1 || s->share_asked)
        return;
    s->share_asked = true;
    wake_others(s, false);
}

void bkv_share_given(struct bkv *s)
{
    bkv_share_tell(s);
    wake_others(s, true);
}
