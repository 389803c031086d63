/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock of a device: one compare-and-write at a time, and nobody else writes its range while it
 * is under way, on any reactor. The home reactor (that opened the device) keeps the line. Taking
 * the lock tells each reactor the range; there writes that begin later and overlap are parked, and
 * those that had begun are waited for: each channel counts its requests in flight in two epochs
 * and flips. No lock and no atomic is touched by requests that do not meet one.
 *
 * Messages per reactor: lock, unlock, lock, ... A lock is announced when the one before has been
 * acknowledged, so each slot needs one message of a kind.
 */
#include "blk/internal.h"

/* Runs fn on a reactor: at once when that is this one. */
static void tell(struct rt_reactor *to, struct rt_msg *msg, void (*fn)(struct rt_msg *msg))
{
    msg->fn = fn;
    if (to == rt_self())
        fn(msg);
    else
        rt_send(to, msg);
}

/* --- on each reactor -------------------------------------------------------------------------- */

static void ack_arrives(struct rt_msg *msg);

static void ack(struct blk_slot *slot)
{
    tell(slot->dev->home, &slot->ack_msg, ack_arrives);
}

void blk_lock_apply(struct blk_chan *chan)
{
    if (chan->slot->lock.nblocks != 0)
        chan->direct = chan->direct_unlocked & ~(1u << BLK_WRITE);
    else
        chan->direct = chan->direct_unlocked;
}

void blk_drained(struct blk_chan *chan)
{
    chan->draining = false;
    ack(chan->slot);
}

static void lock_arrives(struct rt_msg *msg)
{
    struct blk_slot *slot = container_of(msg, struct blk_slot, lock_msg);
    struct blk_chan *chan = slot->chan;

    slot->lock = slot->dev->lock_range;
    if (chan == NULL) {
        ack(slot);
        return;
    }
    blk_lock_apply(chan);
    chan->epoch = !chan->epoch;
    chan->draining = true;
    if (chan->in_flight[!chan->epoch] == 0)
        blk_drained(chan);
}

static void unlock_arrives(struct rt_msg *msg)
{
    struct blk_slot *slot = container_of(msg, struct blk_slot, unlock_msg);
    struct blk_chan *chan = slot->chan;

    slot->lock = (struct blk_range){0};
    if (chan == NULL)
        return;
    blk_lock_apply(chan);
    for (;;) {
        struct blk_req *req = list_pop_entry(&chan->parked, struct blk_req, link);

        if (req == NULL)
            break;
        blk_issue(chan, req);
    }
}

/* --- on the home reactor ---------------------------------------------------------------------- */

static void granted(struct rt_msg *msg)
{
    rt_req_complete(&container_of(msg, struct blk_turn, msg)->req, 0);
}

static void ack_arrives(struct rt_msg *msg)
{
    struct blk_dev *dev = container_of(msg, struct blk_slot, ack_msg)->dev;
    struct blk_turn *turn = list_first(&dev->turns, struct blk_turn, link);

    must(turn != NULL);
    must(dev->acks_due > 0);
    if (--dev->acks_due == 0)
        tell(turn->origin, &turn->msg, granted);
}

static void turn_begin(struct blk_dev *dev)
{
    dev->locked_ever = true;
    dev->lock_range = list_first(&dev->turns, struct blk_turn, link)->range;
    dev->acks_due = dev->nslots;
    for (unsigned i = 0; i < dev->nslots; i++)
        tell(dev->slot[i].reactor, &dev->slot[i].lock_msg, lock_arrives);
}

static void turn_arrives(struct rt_msg *msg)
{
    struct blk_turn *turn = container_of(msg, struct blk_turn, msg);
    struct blk_dev *dev = turn->dev;

    list_add_tail(&dev->turns, &turn->link);
    if (list_first(&dev->turns, struct blk_turn, link) == turn)
        turn_begin(dev);
}

static void turn_ends(struct rt_msg *msg)
{
    struct blk_turn *turn = container_of(msg, struct blk_turn, msg);
    struct blk_dev *dev = turn->dev;

    must(list_first(&dev->turns, struct blk_turn, link) == turn);
    list_del(&turn->link);
    for (unsigned i = 0; i < dev->nslots; i++)
        tell(dev->slot[i].reactor, &dev->slot[i].unlock_msg, unlock_arrives);
    tell(turn->origin, &turn->msg, granted);
    if (!list_empty(&dev->turns))
        turn_begin(dev);
}

/* --- for workers ------------------------------------------------------------------------------ */

static void ask_home(struct rt_task *t, struct blk_turn *turn, void (*fn)(struct rt_msg *msg))
{
    rt_req_init_task(&turn->req, t);
    rt_req_begin(&turn->req);
    tell(turn->dev->home, &turn->msg, fn);
    rt_wait(t, &turn->req);
}

void blk_lock(struct rt_task *t, struct blk_turn *turn, struct blk_dev *dev, struct blk_range range)
{
    turn->origin = rt_self();
    turn->dev = dev;
    turn->range = range;
    ask_home(t, turn, turn_arrives);
}

void blk_unlock(struct rt_task *t, struct blk_turn *turn)
{
    ask_home(t, turn, turn_ends);
}

static int nothing(struct rt_task *t, void *arg)
{
    return 0;
}

void blk_lock_flush(struct rt_task *t, struct blk_dev *dev)
{
    if (!dev->locked_ever)
        return;
    for (unsigned i = 0; i < dev->nslots; i++)
        rt_on(t, dev->slot[i].reactor, nothing, NULL);
}
