/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels: the use of a store from one reactor, counted; and waiting for the I/O that is under
 * way on all of them. Who frees a cluster or a map first makes it unreachable, then waits so.
 */
#include "blob/slow.h"

static void chan_free(struct blob_chan *chan)
{
    rt_pool_fini(&chan->workers);
    free(chan);
}

static int slot_open(struct rt_task *t, struct blob_store *bs, struct blob_slot *slot)
{
    struct blob_chan *chan = calloc(1, sizeof(*chan));
    int rc;

    if (chan == NULL)
        return -ENOMEM;
    chan->bs = bs;
    chan->block_shift = bs->block_shift;
    list_init(&chan->slow);
    rc = rt_pool_init(&chan->workers, sizeof(struct blob_worker), BLOB_WORKERS);
    if (rc == 0)
        rc = blk_chan_get(t, bs->dev, &chan->blk);
    if (rc < 0) {
        chan_free(chan);
        return rc;
    }
    slot->chan = chan;
    return 0;
}

static struct blob_slot *slot_here(struct blob_store *bs)
{
    struct blob_slot *slot = &bs->slot[rt_index(rt_self())];

    must(slot->reactor == rt_self());
    return slot;
}

int blob_chan_get(struct rt_task *t, struct blob_store *bs, struct blob_chan **out_chan)
{
    struct blob_slot *slot = slot_here(bs);
    int rc;

    while (slot->state == BLOB_SLOT_OPENING || slot->state == BLOB_SLOT_CLOSING) {
        rc = rt_cond_wait(t, &slot->changed);
        if (rc < 0)
            return rc;
    }
    if (slot->state == BLOB_SLOT_NONE) {
        slot->state = BLOB_SLOT_OPENING;
        rc = slot_open(t, bs, slot);
        slot->state = rc < 0 ? BLOB_SLOT_NONE : BLOB_SLOT_OPEN;
        rt_cond_wake_all(&slot->changed);
        if (rc < 0)
            return rc;
    }
    slot->users++;
    *out_chan = slot->chan;
    return 0;
}

void blob_chan_put(struct rt_task *t, struct blob_chan *chan)
{
    struct blob_slot *slot = slot_here(chan->bs);

    must(slot->users > 0);
    if (--slot->users > 0)
        return;
    rt_task_shield(t, true);
    slot->state = BLOB_SLOT_CLOSING;
    /* The users' requests have completed, but a worker may just be on its way out. */
    while (chan->workers.free < chan->workers.total)
        rt_cond_wait(t, &chan->workers_gone);
    must(chan->in_flight[0] + chan->in_flight[1] == 0);
    must(list_empty(&chan->slow));
    blk_chan_put(t, chan->blk);
    slot->chan = NULL;
    slot->state = BLOB_SLOT_NONE;
    chan_free(chan);
    rt_cond_wake_all(&slot->changed);
    rt_task_shield(t, false);
}

void blob_chan_abandon(struct blob_chan *chan)
{
    if (chan == NULL)
        return;
    chan->workers.free = chan->workers.total;
    chan_free(chan);
}

static int drain_here(struct rt_task *t, void *arg)
{
    struct blob_store *bs = arg;
    struct blob_slot *slot = slot_here(bs);
    struct blob_chan *chan = slot->chan;
    uint8_t old;

    if (slot->state != BLOB_SLOT_OPEN)
        return 0;
    slot->users++; /* so that it stays */
    old = chan->epoch;
    chan->epoch ^= 1;
    rt_task_shield(t, true);
    while (chan->in_flight[old] > 0)
        rt_cond_wait(t, &chan->drained);
    rt_task_shield(t, false);
    blob_chan_put(t, chan);
    return 0;
}

int blob_quiesce(struct rt_task *t, struct blob_store *bs)
{
    for (unsigned i = 0; i < bs->nslots; i++) {
        int rc = rt_on(t, bs->slot[i].reactor, drain_here, bs);

        if (rc < 0)
            return rc;
    }
    return 0;
}
