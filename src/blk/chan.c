/* SPDX-License-Identifier: Apache-2.0 */
/* Channels: the use of a device from one reactor, counted; and what they have counted. */
#include "blk/internal.h"

#include <sys/mman.h>

static void chan_free(struct blk_chan *chan)
{
    rt_pool_fini(&chan->workers);
    if (chan->worker_bufs != NULL)
        munmap(chan->worker_bufs, (size_t)BLK_WORKERS * BLK_BUF_BYTES);
    free(chan);
}

void blk_chan_abandon(struct blk_chan *chan)
{
    if (chan == NULL)
        return;
    chan->workers.free = chan->workers.total;
    chan_free(chan);
}

static struct blk_chan *chan_new(struct blk_slot *slot)
{
    struct blk_dev *dev = slot->dev;
    size_t head = round_up_u64(sizeof(struct blk_chan), 64);
    size_t size = round_up_u64(head + dev->drv->chan_bytes, 64);
    struct blk_chan *chan = aligned_alloc(64, size);
    void *bufs;

    if (chan == NULL)
        return NULL;
    memset(chan, 0, size);
    chan->driver_part = (uint8_t *)chan + head;
    chan->dev = dev;
    chan->drv = dev->drv;
    chan->slot = slot;
    list_init(&chan->parked);
    list_init(&chan->slow);
    bufs = mmap(NULL, (size_t)BLK_WORKERS * BLK_BUF_BYTES, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bufs != MAP_FAILED)
        chan->worker_bufs = bufs;
    if (bufs == MAP_FAILED ||
        rt_pool_init(&chan->workers, sizeof(struct blk_worker), BLK_WORKERS) < 0) {
        chan_free(chan);
        return NULL;
    }
    blk_chan_tune(chan);
    return chan;
}

static int slot_open(struct rt_task *t, struct blk_slot *slot)
{
    struct blk_dev *dev = slot->dev;
    struct blk_chan *chan = chan_new(slot);
    int rc;

    if (chan == NULL)
        return -ENOMEM;
    if (dev->drv->chan_open != NULL) {
        rc = dev->drv->chan_open(t, dev, chan);
        if (rc < 0) {
            chan_free(chan);
            return rc;
        }
    }
    slot->chan = chan;
    blk_lock_apply(chan);
    return 0;
}

int blk_chan_get(struct rt_task *t, struct blk_dev *dev, struct blk_chan **out_chan)
{
    struct blk_slot *slot = &dev->slot[rt_index(rt_self())];
    int rc;

    must(slot->reactor == rt_self());
    while (slot->state == BLK_SLOT_OPENING || slot->state == BLK_SLOT_CLOSING) {
        rc = rt_cond_wait(t, &slot->changed);
        if (rc < 0)
            return rc;
    }
    if (slot->state == BLK_SLOT_NONE) {
        if (blk_dev_gone(dev))
            return -ENODEV;
        slot->state = BLK_SLOT_OPENING;
        rc = slot_open(t, slot);
        slot->state = rc < 0 ? BLK_SLOT_NONE : BLK_SLOT_OPEN;
        rt_cond_wake_all(&slot->changed);
        if (rc < 0)
            return rc;
    }
    slot->users++;
    *out_chan = slot->chan;
    return 0;
}

void blk_chan_put(struct rt_task *t, struct blk_chan *chan)
{
    struct blk_slot *slot = chan->slot;
    struct blk_dev *dev = chan->dev;

    must(slot->reactor == rt_self());
    must(slot->users > 0);
    if (--slot->users > 0)
        return;
    rt_task_shield(t, true);
    slot->state = BLK_SLOT_CLOSING;
    /* The users' requests have all completed, but a worker may just be on its way out. */
    while (chan->workers.free < chan->workers.total)
        rt_cond_wait(t, &chan->workers_gone);
    must(chan->in_flight[0] + chan->in_flight[1] == 0);
    must(list_empty(&chan->parked));
    if (dev->drv->chan_close != NULL)
        dev->drv->chan_close(t, chan);
    pthread_mutex_lock(&dev->lock);
    blk_stats_add(&dev->closed, &chan->stats);
    pthread_mutex_unlock(&dev->lock);
    slot->chan = NULL;
    slot->state = BLK_SLOT_NONE;
    chan_free(chan);
    rt_cond_wake_all(&slot->changed);
    rt_task_shield(t, false);
}

void blk_stats_add(struct blk_stats *dst, const struct blk_stats *src)
{
    for (unsigned op = 0; op < BLK_OPS; op++) {
        dst->op[op].ops += src->op[op].ops;
        dst->op[op].bytes += src->op[op].bytes;
        dst->op[op].errors += src->op[op].errors;
        hist_merge(&dst->op[op].latency_ns, &src->op[op].latency_ns);
    }
}

struct sum {
    struct blk_dev *dev;
    struct blk_stats *out;
};

static int sum_here(struct rt_task *t, void *arg)
{
    struct sum *s = arg;
    struct blk_slot *slot = &s->dev->slot[rt_index(rt_self())];

    if (slot->chan != NULL)
        blk_stats_add(s->out, &slot->chan->stats);
    return 0;
}

int blk_stats(struct rt_task *t, struct blk_dev *dev, struct blk_stats *out)
{
    struct sum s = {.dev = dev, .out = out};
    int rc;

    pthread_mutex_lock(&dev->lock);
    *out = dev->closed;
    pthread_mutex_unlock(&dev->lock);
    for (unsigned i = 0; i < dev->nslots; i++) {
        rc = rt_on(t, dev->slot[i].reactor, sum_here, &s);
        if (rc < 0)
            return rc;
    }
    return 0;
}
