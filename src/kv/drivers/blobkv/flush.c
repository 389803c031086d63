/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flush. A commit has one for itself, for somebody waits for it; who works in the background
 * takes part in that of the next commit, as each one more makes the commits beside it wait about as
 * long as one of their own.
 */
#include "kv/drivers/blobkv/blobkv.h"

#include "base/plant.h"

#define SOON_NS (10 * NS_PER_MS)

int bkv_flush(struct rt_task *t, struct bkv *s)
{
    uint32_t hot = s->pos[BKV_HOT].number;
    uint32_t cold = s->cold_head.due ? 0 : s->pos[BKV_COLD].number; /* nothing without its head */
    uint32_t hot_seg = s->pos[BKV_HOT].segment, cold_seg = s->pos[BKV_COLD].segment;
    uint64_t no = ++s->flush_no;
    int rc;

    if (s->poison != 0)
        return -EIO;
    rc =
        PLANTED("kv-skip-flush") && s->stats.flushes % 8 == 7 ? 0 : blob_flush(t, s->chan, s->blob);
    s->stats.flushes++;
    /* Another's that failed may have lost what this one was to make durable. */
    if (rc == 0 && blob_flush_failures(s->lvs.bs) != s->flush_failures)
        rc = -EIO;
    if (rc == 0) {
        if (s->pos[BKV_HOT].segment == hot_seg)
            s->pos[BKV_HOT].durable = MAX(s->pos[BKV_HOT].durable, hot);
        if (s->pos[BKV_COLD].segment == cold_seg)
            s->pos[BKV_COLD].durable = MAX(s->pos[BKV_COLD].durable, cold);
        s->flushed_no = MAX(s->flushed_no, no);
    } else {
        rc = bkv_poison(s, rc, "a flush");
    }
    rt_cond_wake_all(&s->flushed);
    return rc;
}

/* A commit is under way, or about to begin. Not so when it waits for what the caller does. */
static bool commit_is_near(const struct bkv *s)
{
    return s->opts.sync && !s->want_room && !s->memory_short && !s->freezing &&
           (s->hot_busy || (s->commit_due && !list_empty(&s->queue)));
}

int bkv_flush_soon(struct rt_task *t, struct bkv *s)
{
    /* What has begun already may have missed what the caller has written. */
    return bkv_flush_after(t, s, s->flush_no);
}

int bkv_flush_after(struct rt_task *t, struct bkv *s, uint64_t no)
{
    uint64_t until = rt_now() + SOON_NS;
    bool late = false;

    while (s->poison == 0 && s->flushed_no <= no && !late && commit_is_near(s))
        late = !bkv_cond_wait_until(t, &s->flushed, until);
    if (s->poison != 0)
        return -EIO;
    return s->flushed_no > no ? 0 : bkv_flush(t, s);
}
