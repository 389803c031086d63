/* SPDX-License-Identifier: Apache-2.0 */
/* Channels: one per reactor and device, shared by its users; and the statistics kept in them. */
#include "kv/internal.h"

#define STREAM_OPS                                                                                 \
    (1u << KV_STORE_OPEN | 1u << KV_WRITE | 1u << KV_COMMIT | 1u << KV_ABORT |                     \
     1u << KV_RETRIEVE_OPEN | 1u << KV_READ | 1u << KV_READ_CLOSE)

void kv_chan_free(struct kv_chan *chan)
{
    if (chan == NULL)
        return;
    kv_streams_free(chan);
    free(chan->emuls);
    free(chan->discard);
    free(chan);
}

static struct kv_chan *chan_new(struct kv_dev *dev)
{
    size_t len = round_up_u64(sizeof(struct kv_chan) + dev->driver->chan_bytes, 64);
    struct kv_chan *chan = aligned_alloc(64, len);

    if (chan == NULL)
        return NULL;
    memset(chan, 0, len);
    chan->dev = dev;
    chan->submit = dev->driver->submit;
    chan->caps = dev->info.caps;
    chan->key_max = dev->info.key_max;
    chan->val_max = dev->info.val_max;
    chan->forward = dev->driver->home && rt_self() != dev->home;
    if (!chan->forward) {
        chan->plain_ops = ((1u << KV_OPS) - 1) & ~STREAM_OPS;
        if ((chan->caps & KV_CAP_RANGE) == 0)
            chan->plain_ops &= ~(1u << KV_RETRIEVE);
        if ((chan->caps & KV_CAP_ORDERED_LIST) == 0)
            chan->plain_ops &= ~(1u << KV_LIST);
    }
    chan->fast_ops = chan->plain_ops & (1u << KV_STORE | 1u << KV_RETRIEVE);
    if ((chan->caps & KV_CAP_READ_ONLY) != 0)
        chan->fast_ops &= ~(1u << KV_STORE);
    if (kv_emuls_init(chan) < 0) {
        kv_chan_free(chan);
        return NULL;
    }
    return chan;
}

static int chan_open(struct rt_task *t, struct kv_chan *chan)
{
    struct kv_dev *dev = chan->dev;

    if (chan->forward || dev->driver->chan_open == NULL)
        return 0;
    return dev->driver->chan_open(t, dev, chan);
}

/* Waits until nobody opens or closes the channel of this reactor. */
static int chan_settle(struct rt_task *t, struct kv_dev *dev, unsigned idx)
{
    while (dev->chan[idx] != NULL && dev->chan[idx]->state != KV_CHAN_OPEN) {
        int rc = rt_cond_wait(t, &dev->chan[idx]->changed);

        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Takes the channel out and frees it; those who wait for a change look again. */
static void chan_gone(struct kv_chan *chan)
{
    rt_cond_wake_all(&chan->changed);
    __atomic_store_n(&chan->dev->chan[rt_index(rt_self())], NULL, __ATOMIC_RELEASE);
    kv_chan_free(chan);
}

int kv_chan_get(struct rt_task *t, struct kv_dev *dev, struct kv_chan **out_chan)
{
    unsigned idx = rt_index(rt_self());
    struct kv_chan *chan;
    int rc;

    must(idx < dev->nchans);
    rc = chan_settle(t, dev, idx);
    if (rc < 0)
        return rc;
    chan = dev->chan[idx];
    if (chan == NULL) {
        if (atomic_load(&dev->removed))
            return -ENODEV;
        chan = chan_new(dev);
        if (chan == NULL)
            return -ENOMEM;
        chan->state = KV_CHAN_OPENING;
        __atomic_store_n(&dev->chan[idx], chan, __ATOMIC_RELEASE);
        rc = chan_open(t, chan);
        if (rc < 0) {
            chan_gone(chan);
            return rc;
        }
        chan->state = KV_CHAN_OPEN;
        rt_cond_wake_all(&chan->changed);
    }
    chan->refs++;
    *out_chan = chan;
    return 0;
}

static void keep_stats(struct kv_chan *chan)
{
    struct kv_dev *dev = chan->dev;

    pthread_mutex_lock(&dev->lock);
    if (dev->closed == NULL)
        dev->closed = calloc(1, sizeof(*dev->closed));
    if (dev->closed != NULL)
        kv_stats_add(dev->closed, &chan->stats);
    pthread_mutex_unlock(&dev->lock);
}

void kv_chan_put(struct rt_task *t, struct kv_chan *chan)
{
    struct kv_dev *dev;

    if (chan == NULL)
        return;
    dev = chan->dev;
    must(dev->chan[rt_index(rt_self())] == chan);
    must(chan->refs > 0);
    if (--chan->refs > 0)
        return;
    must(chan->held_out == 0);
    chan->state = KV_CHAN_CLOSING;
    if (!chan->forward && dev->driver->chan_close != NULL) {
        rt_task_shield(t, true);
        dev->driver->chan_close(t, chan);
        rt_task_shield(t, false);
    }
    keep_stats(chan);
    chan_gone(chan);
}

struct kv_dev *kv_chan_dev(const struct kv_chan *chan)
{
    return chan->dev;
}

void *kv_driver_chan(const struct kv_chan *chan)
{
    return (void *)chan->driver;
}

struct kv_chan *kv_home_chan(const struct kv_dev *dev)
{
    return dev->home_chan;
}

void kv_stats_add(struct kv_stats *dst, const struct kv_stats *src)
{
    for (unsigned i = 0; i < KV_OPS; i++) {
        dst->op[i].ops += src->op[i].ops;
        dst->op[i].bytes += src->op[i].bytes;
        dst->op[i].errors += src->op[i].errors;
        hist_merge(&dst->op[i].latency_ns, &src->op[i].latency_ns);
    }
}

struct stats_args {
    struct kv_dev *dev;
    struct kv_stats *out;
};

static int stats_here(struct rt_task *t, void *arg)
{
    struct stats_args *a = arg;
    struct kv_chan *chan = a->dev->chan[rt_index(rt_self())];

    if (chan != NULL)
        kv_stats_add(a->out, &chan->stats);
    return 0;
}

int kv_stats(struct rt_task *t, struct kv_dev *dev, struct kv_stats *out)
{
    struct stats_args args = {.dev = dev, .out = out};

    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; i < dev->nchans; i++) {
        int rc;

        if (__atomic_load_n(&dev->chan[i], __ATOMIC_ACQUIRE) == NULL)
            continue;
        rc = rt_on(t, rt_reactor(i), stats_here, &args);
        if (rc < 0)
            return rc;
    }
    pthread_mutex_lock(&dev->lock);
    if (dev->closed != NULL)
        kv_stats_add(out, dev->closed);
    pthread_mutex_unlock(&dev->lock);
    return 0;
}
