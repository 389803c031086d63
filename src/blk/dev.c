/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry: a device is opened once per process (per runtime, to be exact) and shared. It is
 * on the list from the first moment of its opening to the last of its closing, so that nobody
 * opens it beside; who meets it in between waits for any change and looks again.
 */
#include "blk/internal.h"

#include <stdio.h>

static struct {
    pthread_mutex_t lock;
    struct list devs;
    struct list waiters; /* waiter */
} reg = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .devs = LIST_INIT(reg.devs),
    .waiters = LIST_INIT(reg.waiters),
};

struct waiter {
    struct rt_req req;
    struct rt_msg msg;
    struct rt_reactor *reactor;
    struct rt_reactor *rt0;
    struct list link;
};

/* A URI taken apart; on the heap, for it is large. */
struct target {
    const struct blk_driver *drv;
    struct param_values params;
    struct uri uri;
};

static void waiter_wakes(struct rt_msg *msg)
{
    rt_req_complete(&container_of(msg, struct waiter, msg)->req, 0);
}

/* Under the lock: devices have come, changed or gone. */
static void changed(void)
{
    struct waiter *w;

    list_for_each (w, &reg.waiters, struct waiter, link) {
        list_del(&w->link);
        rt_send(w->reactor, &w->msg);
    }
}

/* Gives the lock back, waits for a change, and takes it again. */
static void wait_for_change(struct rt_task *t)
{
    struct waiter w = {
        .msg.fn = waiter_wakes, .reactor = rt_self(), .rt0 = rt_reactor(0), .link = {0}};

    rt_req_init_task(&w.req, t);
    rt_req_begin(&w.req);
    list_add_tail(&reg.waiters, &w.link);
    pthread_mutex_unlock(&reg.lock);
    rt_wait(t, &w.req);
    pthread_mutex_lock(&reg.lock);
}

/* --- URI -------------------------------------------------------------------------------------- */

static bool scheme_names(const char *scheme, const char *name)
{
    for (; *scheme != '\0' && *name != '\0'; scheme++, name++) {
        if ((*scheme == '+' ? '_' : *scheme) != *name)
            return false;
    }
    return *scheme == *name;
}

static int unknown_scheme(const char *scheme, struct err *why)
{
    char known[ERR_TEXT_MAX / 2] = "";
    size_t len = 0;

    for (const struct blk_driver *const *d = blk_drivers; *d != NULL && len < sizeof(known); d++)
        len += (size_t)snprintf(known + len, sizeof(known) - len, " %s:", (*d)->name);
    return err_set(why, -EINVAL, "%.64s: no such kind of block device; there are%s", scheme, known);
}

static int target_parse(const char *text, struct target *target, struct err *why)
{
    static const struct param none[] = {{.name = NULL}};
    int rc = uri_parse(text, &target->uri, why);

    if (rc < 0)
        return rc;
    for (const struct blk_driver *const *d = blk_drivers; *d != NULL; d++) {
        if (scheme_names(target->uri.scheme, (*d)->name))
            target->drv = *d;
    }
    if (target->drv == NULL)
        return unknown_scheme(target->uri.scheme, why);
    if (target->uri.fragment != NULL && !target->drv->fragment)
        return err_set(why, -EINVAL, "%s: devices of %s: have no #fragment", text,
                       target->uri.scheme);
    return uri_params(&target->uri, target->drv->params != NULL ? target->drv->params : none,
                      &target->params, why);
}

void blk_uuid_of(const char *text, uint8_t out_uuid[16])
{
    __extension__ typedef unsigned __int128 u128;
    const u128 prime = (u128)1 << 88 | 0x13b;
    u128 h = (u128)0x6c62272e07bb0142u << 64 | 0x62b821756295c58du; /* FNV-1a, 128 bits */

    for (; *text != '\0'; text++)
        h = (h ^ (uint8_t)*text) * prime;
    for (unsigned i = 0; i < 16; i++)
        out_uuid[i] = (uint8_t)(h >> (120 - 8 * i));
    out_uuid[6] = (out_uuid[6] & 0x0f) | 0x80; /* version 8: made our way */
    out_uuid[8] = (out_uuid[8] & 0x3f) | 0x80;
}

/* --- one device ------------------------------------------------------------------------------- */

static void dev_free(struct blk_dev *dev)
{
    blk_notices_fini(dev);
    free(dev->slot);
    free(dev->uri);
    free(dev);
}

static struct blk_dev *dev_new(const char *uri, const struct blk_driver *drv)
{
    size_t head = round_up_u64(sizeof(struct blk_dev), 64);
    size_t size = round_up_u64(head + drv->dev_bytes, 64);
    struct blk_dev *dev = aligned_alloc(64, size);

    if (dev == NULL)
        return NULL;
    memset(dev, 0, size);
    dev->driver_part = (uint8_t *)dev + head;
    dev->drv = drv;
    dev->refs = 1;
    dev->rt0 = rt_reactor(0);
    dev->home = rt_self();
    dev->nslots = rt_reactors();
    list_init(&dev->turns);
    blk_notices_init(dev);
    dev->uri = strdup(uri);
    dev->slot = aligned_alloc(64, dev->nslots * sizeof(*dev->slot));
    if (dev->uri == NULL || dev->slot == NULL) {
        dev_free(dev);
        return NULL;
    }
    memset(dev->slot, 0, dev->nslots * sizeof(*dev->slot));
    for (unsigned i = 0; i < dev->nslots; i++) {
        dev->slot[i].dev = dev;
        dev->slot[i].reactor = rt_reactor(i);
    }
    return dev;
}

/* What the driver says about its device has to make sense; some of it comes from far away. */
static int check_info(const struct blk_dev *dev, struct err *why)
{
    const struct blk_info *info = &dev->info;
    uint32_t b = info->block_bytes;

    if (b < 512 || b > 65536 || (b & (b - 1)) != 0)
        return err_set(why, -ENOTSUP, "%s: blocks of %u bytes are not supported", dev->uri, b);
    if (info->nblocks == 0 || info->nblocks > INT64_MAX / b)
        return err_set(why, -ENOTSUP, "%s: %llu blocks of %u bytes", dev->uri,
                       (unsigned long long)info->nblocks, b);
    if (info->max_io_bytes != 0 && info->max_io_bytes < b)
        return err_set(why, -ENOTSUP, "%s: takes %u bytes at a time, less than a block", dev->uri,
                       info->max_io_bytes);
    must((info->buf_align & (info->buf_align - 1)) == 0 && info->buf_align <= 4096);
    return 0;
}

static int dev_open(struct rt_task *t, struct blk_dev *dev, const struct target *target,
                    struct err *why)
{
    int rc = dev->drv->open(t, dev, target->uri.path, &target->params, &dev->info, why);

    if (rc < 0)
        return rc;
    rc = check_info(dev, why);
    if (rc < 0) {
        rt_task_shield(t, true);
        dev->drv->close(t, dev);
        rt_task_shield(t, false);
        return rc;
    }
    dev->block_shift = (uint8_t)__builtin_ctz(dev->info.block_bytes);
    dev->limit = blk_dev_gone(dev) ? 0 : dev->info.nblocks;
    if (bytes_are_zero(dev->info.uuid, sizeof(dev->info.uuid)))
        blk_uuid_of(dev->uri, dev->info.uuid);
    return 0;
}

/* --- open and close --------------------------------------------------------------------------- */

/*
 * Under the lock: 1 and a reference, 0 when it is not open, or an errno. A device that this very
 * task is opening (its base has the same driver) is none to wait for.
 */
static int find(struct rt_task *t, const char *uri, const struct target *target,
                struct blk_dev **out_dev, struct err *why)
{
    struct rt_reactor *rt0 = rt_reactor(0);
    struct blk_dev *dev;
    bool unsure;
    int rc;

again:
    unsure = false;
    list_for_each (dev, &reg.devs, struct blk_dev, link) {
        if (dev->rt0 != rt0 || dev->drv != target->drv)
            continue;
        if (target->drv->same == NULL && strcmp(dev->uri, uri) != 0)
            continue;
        if (dev->state != BLK_DEV_OPEN) {
            unsure |= dev->opener != t;
            continue;
        }
        rc = 1;
        if (target->drv->same != NULL)
            rc = target->drv->same(dev, target->uri.path, &target->params, why);
        if (rc == 0)
            continue;
        if (rc == 1) {
            dev->refs++;
            *out_dev = dev;
        }
        return rc;
    }
    if (unsure) {
        wait_for_change(t);
        goto again;
    }
    return 0;
}

int blk_open(struct rt_task *t, const char *uri, struct blk_dev **out_dev, struct err *why)
{
    CLEANUP(free_p) struct target *target = calloc(1, sizeof(*target));
    struct blk_dev *dev;
    int rc;

    if (target == NULL)
        return err_set(why, -ENOMEM, "%s: out of memory", uri);
    rc = target_parse(uri, target, why);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&reg.lock);
    rc = find(t, uri, target, out_dev, why);
    dev = rc == 0 ? dev_new(uri, target->drv) : NULL;
    if (dev != NULL) {
        dev->opener = t;
        list_add_tail(&reg.devs, &dev->link);
    }
    pthread_mutex_unlock(&reg.lock);
    if (rc != 0)
        return MIN(rc, 0);
    if (dev == NULL)
        return err_set(why, -ENOMEM, "%s: out of memory", uri);

    rc = dev_open(t, dev, target, why);
    pthread_mutex_lock(&reg.lock);
    dev->state = BLK_DEV_OPEN;
    dev->opener = NULL;
    if (rc < 0)
        list_del(&dev->link);
    changed();
    pthread_mutex_unlock(&reg.lock);
    if (rc < 0) {
        dev_free(dev);
        return rc;
    }
    *out_dev = dev;
    return 0;
}

void blk_close(struct rt_task *t, struct blk_dev *dev)
{
    unsigned refs;

    pthread_mutex_lock(&reg.lock);
    must(dev->refs > 0);
    refs = --dev->refs;
    if (refs == 0)
        dev->state = BLK_DEV_CLOSING;
    pthread_mutex_unlock(&reg.lock);
    if (refs > 0)
        return;

    for (unsigned i = 0; i < dev->nslots; i++)
        must(dev->slot[i].state == BLK_SLOT_NONE);
    must(list_empty(&dev->watches));
    rt_task_shield(t, true);
    blk_lock_flush(t, dev);
    dev->drv->close(t, dev);
    rt_task_shield(t, false);
    pthread_mutex_lock(&reg.lock);
    list_del(&dev->link);
    changed();
    pthread_mutex_unlock(&reg.lock);
    dev_free(dev);
}

void blk_dev_unlist(struct blk_dev *dev)
{
    pthread_mutex_lock(&reg.lock);
    list_del(&dev->link);
    pthread_mutex_unlock(&reg.lock);
}

void blk_abandon(void)
{
    struct rt_reactor *rt0 = rt_reactor(0);
    struct waiter *w;
    struct blk_dev *dev;

    pthread_mutex_lock(&reg.lock);
    list_for_each (w, &reg.waiters, struct waiter, link) {
        if (w->rt0 == rt0)
            list_del(&w->link);
    }
    list_for_each (dev, &reg.devs, struct blk_dev, link) {
        if (dev->rt0 != rt0)
            continue;
        list_del(&dev->link);
        if (dev->drv->abandon != NULL)
            dev->drv->abandon(dev);
        for (unsigned i = 0; i < dev->nslots; i++)
            blk_chan_abandon(dev->slot[i].chan);
        dev_free(dev);
    }
    pthread_mutex_unlock(&reg.lock);
}

struct blk_dev *blk_ref(struct blk_dev *dev)
{
    pthread_mutex_lock(&reg.lock);
    must(dev->refs > 0);
    dev->refs++;
    pthread_mutex_unlock(&reg.lock);
    return dev;
}

const struct blk_info *blk_info(const struct blk_dev *dev)
{
    return &dev->info;
}

const char *blk_uri(const struct blk_dev *dev)
{
    return dev->uri;
}

const struct blk_driver *blk_driver_of(const struct blk_dev *dev)
{
    return dev->drv;
}

void *blk_driver_dev(const struct blk_dev *dev)
{
    return dev->driver_part;
}
