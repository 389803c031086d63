/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The segments the collector moves to. The head of one says where its predecessor ends, so it must
 * not outlive a crash that the end of that one does not: it is written when a flush has covered the
 * predecessor. Blocks need not wait for that. They go to the next segment meanwhile, and without
 * the head recovery knows nothing of them; what they are copies of is still there, for nothing is
 * freed and no super slot is written before bkv_cold_settle(). At most one segment is without.
 */
#include "kv/drivers/blobkv/gc.h"

static int write_head(struct rt_task *t, struct bkv *s)
{
    struct bkv_cold_head *h = &s->cold_head;
    int rc = s->flushed_no > h->after ? 0 : bkv_flush_after(t, s, h->after);

    return rc == 0 ? bkv_seg_head_write(t, s, &h->info) : rc;
}

int bkv_cold_settle(struct rt_task *t, struct bkv *s, uint64_t order)
{
    struct bkv_cold_head *h = &s->cold_head;
    int rc = 0;

    while (rc == 0 && h->due && h->info.order <= order) {
        if (h->busy) {
            (void)rt_cond_wait(t, &h->changed);
            continue;
        }
        h->busy = true;
        rc = write_head(t, s);
        h->busy = false;
        h->due = rc < 0;
        rt_cond_wake_all(&h->changed);
    }
    return rc;
}

static int settle_task(struct rt_task *t, void *arg)
{
    struct bkv *s = arg;

    rt_task_shield(t, true);
    (void)bkv_cold_settle(t, s, s->cold_head.info.order);
    bkv_task_ended(s);
    return 0;
}

int bkv_cold_room(struct rt_task *t, struct bkv *s, uint32_t len)
{
    struct bkv_stream_pos *pos = &s->pos[BKV_COLD];
    struct bkv_cold_head *h = &s->cold_head;
    struct bkv_seg_info info;
    uint64_t after;
    int rc;

    if (pos->segment != 0 && s->segment_bytes - pos->offset >= len)
        return 0;
    rc = bkv_cold_settle(t, s, UINT64_MAX);
    if (rc < 0)
        return rc;
    after = pos->durable == pos->number ? 0 : s->flush_no;
    bkv_seg_seal(s, BKV_COLD);
    rc = bkv_seg_open_wait(t, s, BKV_COLD, BKV_NEED_MOVE, &info);
    if (rc < 0)
        return rc;
    h->info = info;
    h->after = after;
    h->due = true;
    /* What is left undone here the next one who needs the head does. */
    if (after != 0)
        (void)bkv_task(s, "blobkv cold head", settle_task, s);
    return 0;
}

int bkv_cold_write(struct rt_task *t, struct bkv *s, uint8_t *block, uint32_t len)
{
    struct bkv_stream_pos *pos = &s->pos[BKV_COLD];
    struct bkv_cold_head *h = &s->cold_head;
    uint64_t base = (uint64_t)pos->segment << s->segment_shift;
    bool first = h->due && !h->busy && h->after == 0 && pos->offset == s->sector_bytes;
    uint32_t head = first ? s->sector_bytes : 0;
    int rc;

    if (first) {
        h->busy = true;
        bkv_seg_head_encode(&h->info, s->super.uuid, base, block - head, head);
    }
    rc = bkv_write(t, s, block - head, base + pos->offset - head, head + len);
    if (first) {
        h->busy = false;
        h->due = rc < 0;
        rt_cond_wake_all(&h->changed);
    }
    return rc;
}
