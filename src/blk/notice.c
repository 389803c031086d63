/* SPDX-License-Identifier: Apache-2.0 */
/* Who uses a device (claims), and who is told what happens to it (watches). */
#include "blk/internal.h"

void blk_notices_init(struct blk_dev *dev)
{
    pthread_mutex_init(&dev->lock, NULL);
    list_init(&dev->holders);
    list_init(&dev->watches);
}

void blk_notices_fini(struct blk_dev *dev)
{
    for (;;) {
        struct blk_holder *h = list_pop_entry(&dev->holders, struct blk_holder, link);

        if (h == NULL)
            break;
        free(h);
    }
    pthread_mutex_destroy(&dev->lock);
}

/* --- claims ----------------------------------------------------------------------------------- */

static const char *claim_name(enum blk_claim claim)
{
    switch (claim) {
    case BLK_CLAIM_READ:
        return "reading";
    case BLK_CLAIM_SHARED_WRITE:
        return "shared writing";
    case BLK_CLAIM_EXCLUSIVE:
        break;
    }
    return "exclusive use";
}

static struct blk_holder *find_conflict(struct blk_dev *dev, enum blk_claim claim)
{
    struct blk_holder *h;

    list_for_each (h, &dev->holders, struct blk_holder, link) {
        if (claim == BLK_CLAIM_EXCLUSIVE || h->claim == BLK_CLAIM_EXCLUSIVE)
            return h;
    }
    return NULL;
}

int blk_claim(struct blk_dev *dev, enum blk_claim claim, const char *holder, struct err *why)
{
    struct blk_holder *mine, *other;
    int rc = 0;

    if (blk_dev_gone(dev))
        return err_set(why, -ENODEV, "%s: the device is gone", dev->uri);
    if (claim != BLK_CLAIM_READ && (dev->info.caps & BLK_CAP_READ_ONLY))
        return err_set(why, -EROFS, "%s: the device is read-only", dev->uri);
    mine = malloc(sizeof(*mine));
    if (mine == NULL)
        return err_set(why, -ENOMEM, "%s: out of memory", dev->uri);
    *mine = (struct blk_holder){.claim = claim, .name = holder};
    pthread_mutex_lock(&dev->lock);
    other = find_conflict(dev, claim);
    if (other != NULL) {
        rc = err_set(why, -EBUSY, "%s: %s has it for %s", dev->uri, other->name,
                     claim_name(other->claim));
    } else {
        list_add_tail(&dev->holders, &mine->link);
        mine = NULL;
    }
    pthread_mutex_unlock(&dev->lock);
    free(mine);
    return rc;
}

void blk_unclaim(struct blk_dev *dev, enum blk_claim claim, const char *holder)
{
    struct blk_holder *h, *found = NULL;

    pthread_mutex_lock(&dev->lock);
    list_for_each (h, &dev->holders, struct blk_holder, link) {
        if (h->claim == claim && strcmp(h->name, holder) == 0)
            found = h;
    }
    must(found != NULL);
    list_del(&found->link);
    pthread_mutex_unlock(&dev->lock);
    free(found);
}

/* --- watches ---------------------------------------------------------------------------------- */

static void watch_arrives(struct rt_msg *msg)
{
    struct blk_watch *w = container_of(msg, struct blk_watch, msg);
    uint32_t events = __atomic_exchange_n(&w->pending, 0, __ATOMIC_ACQ_REL);

    /* Removal comes last: after it `w` may be no more. */
    if (events & 1u << BLK_EVENT_RESIZED)
        w->fn(w, BLK_EVENT_RESIZED);
    if (events & 1u << BLK_EVENT_REMOVED)
        w->fn(w, BLK_EVENT_REMOVED);
}

/* Under dev->lock: after blk_watch_del has taken the watch off, nothing more is sent to it. */
static void watch_tell(struct blk_watch *w, enum blk_event ev)
{
    if (__atomic_fetch_or(&w->pending, 1u << ev, __ATOMIC_ACQ_REL) != 0)
        return;
    w->msg.fn = watch_arrives;
    rt_send(w->reactor, &w->msg);
}

static void tell_all(struct blk_dev *dev, enum blk_event ev)
{
    struct blk_watch *w;

    list_for_each (w, &dev->watches, struct blk_watch, link)
        watch_tell(w, ev);
}

void blk_watch_add(struct blk_dev *dev, struct blk_watch *w)
{
    w->reactor = rt_self();
    w->pending = 0;
    pthread_mutex_lock(&dev->lock);
    list_add_tail(&dev->watches, &w->link);
    if (blk_dev_gone(dev))
        watch_tell(w, BLK_EVENT_REMOVED);
    pthread_mutex_unlock(&dev->lock);
}

struct mail_end {
    struct rt_req req;
    struct rt_msg msg;
};

static void mail_end_arrives(struct rt_msg *msg)
{
    rt_req_complete(&container_of(msg, struct mail_end, msg)->req, 0);
}

/* Waits until what was sent to this reactor so far has arrived. */
static int mail_flush(struct rt_task *t, void *arg)
{
    struct mail_end end = {.msg.fn = mail_end_arrives};

    rt_req_init_task(&end.req, t);
    rt_req_begin(&end.req);
    rt_send(rt_self(), &end.msg);
    rt_wait(t, &end.req);
    return 0;
}

void blk_watch_del(struct rt_task *t, struct blk_dev *dev, struct blk_watch *w)
{
    pthread_mutex_lock(&dev->lock);
    list_del(&w->link);
    pthread_mutex_unlock(&dev->lock);
    rt_task_shield(t, true);
    rt_on(t, w->reactor, mail_flush, NULL);
    rt_task_shield(t, false);
}

void blk_resized(struct blk_dev *dev, uint64_t nblocks)
{
    pthread_mutex_lock(&dev->lock);
    if (!blk_dev_gone(dev) && dev->info.nblocks != nblocks) {
        __atomic_store_n(&dev->info.nblocks, nblocks, __ATOMIC_RELAXED);
        __atomic_store_n(&dev->limit, nblocks, __ATOMIC_RELAXED);
        tell_all(dev, BLK_EVENT_RESIZED);
    }
    pthread_mutex_unlock(&dev->lock);
}

void blk_removed(struct blk_dev *dev)
{
    blk_dev_unlist(dev);
    pthread_mutex_lock(&dev->lock);
    if (!blk_dev_gone(dev)) {
        __atomic_store_n(&dev->gone, true, __ATOMIC_RELAXED);
        __atomic_store_n(&dev->limit, 0, __ATOMIC_RELAXED);
        tell_all(dev, BLK_EVENT_REMOVED);
    }
    pthread_mutex_unlock(&dev->lock);
}

int blk_refresh(struct rt_task *t, struct blk_dev *dev)
{
    uint64_t nblocks;
    int rc;

    if (blk_dev_gone(dev))
        return -ENODEV;
    if (dev->drv->refresh == NULL)
        return 0;
    rc = dev->drv->refresh(t, dev, &nblocks);
    if (rc < 0)
        return rc;
    blk_resized(dev, nblocks);
    return 0;
}
