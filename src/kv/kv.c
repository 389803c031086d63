/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices: the registry of what this process has open, by URI; claims, watches, removal. All of it
 * is control plane: a mutex, and a look again after a moment where somebody else is opening or
 * closing the same device.
 */
#include "kv/internal.h"

#include <stdio.h>
#include <string.h>

#define LOOK_AGAIN_NS NS_PER_MS

/* One per runtime, so that the machines of a simulation do not share devices. */
struct kv_registry {
    pthread_mutex_t lock; /* zeroed is initialised */
    struct list devs;
};

static struct kv_registry *registry_get(void)
{
    static const char key;
    struct kv_registry *reg = rt_local(&key, sizeof(*reg));

    pthread_mutex_lock(&reg->lock);
    if (reg->devs.next == NULL)
        list_init(&reg->devs);
    pthread_mutex_unlock(&reg->lock);
    return reg;
}

static void dev_free(struct kv_dev *dev)
{
    if (dev == NULL)
        return;
    pthread_mutex_destroy(&dev->lock);
    free(dev->closed);
    free(dev->chan);
    free(dev->uri);
    free(dev);
}

static void dev_free_p(struct kv_dev **pdev)
{
    dev_free(*pdev);
}

static struct kv_dev *dev_new(const struct kv_driver *driver, const char *uri)
{
    size_t len = round_up_u64(sizeof(struct kv_dev) + driver->dev_bytes, 64);
    struct kv_dev *dev = aligned_alloc(64, len);

    if (dev == NULL)
        return NULL;
    memset(dev, 0, len);
    pthread_mutex_init(&dev->lock, NULL);
    list_init(&dev->watches);
    list_init(&dev->link);
    dev->driver = driver;
    dev->home = rt_self();
    dev->registry = registry_get();
    dev->nchans = rt_reactors();
    dev->refs = 1;
    dev->opening = true;
    dev->uri = strdup(uri);
    dev->chan = calloc(dev->nchans, sizeof(struct kv_chan *));
    if (dev->uri == NULL || dev->chan == NULL) {
        dev_free(dev);
        return NULL;
    }
    return dev;
}

/* --- opening and closing ---------------------------------------------------------------------- */

/* What a URI says, taken apart. Large: lives on the heap, not on a task's stack. */
struct target {
    const struct kv_driver *driver;
    struct uri uri;
    struct param_values params;
};

static void target_free_p(struct target **pt)
{
    free(*pt);
}

static bool scheme_is(const char *scheme, const char *name)
{
    for (; *scheme != '\0' && *name != '\0'; scheme++, name++) {
        if ((*scheme == '+' ? '_' : *scheme) != *name)
            return false;
    }
    return *scheme == *name;
}

static int unknown_scheme(const char *scheme, struct err *why)
{
    char known[128] = "";
    size_t used = 0;

    for (const struct kv_driver *const *d = kv_drivers; *d != NULL; d++) {
        int n =
            snprintf(known + used, sizeof(known) - used, "%s%s", used > 0 ? ", " : "", (*d)->name);

        if (n < 0 || (size_t)n >= sizeof(known) - used)
            break;
        used += (size_t)n;
    }
    return err_set(why, -EINVAL, "\"%.32s:\" is no kind of KV device; there are: %s", scheme,
                   known);
}

static int target_parse(const char *uri, struct target *out, struct err *why)
{
    static const struct param none[] = {{0}};
    int rc = uri_parse(uri, &out->uri, why);

    if (rc < 0)
        return rc;
    for (const struct kv_driver *const *d = kv_drivers; *d != NULL; d++) {
        if (scheme_is(out->uri.scheme, (*d)->name))
            out->driver = *d;
    }
    if (out->driver == NULL)
        return unknown_scheme(out->uri.scheme, why);
    if (out->uri.fragment != NULL && !out->driver->fragment)
        return err_set(why, -EINVAL, "%.128s: devices of %.32s: have no #fragment", uri,
                       out->uri.scheme);
    return uri_params(&out->uri, out->driver->params != NULL ? out->driver->params : none,
                      &out->params, why);
}

static int is_same(struct kv_dev *dev, const char *uri, const struct target *target,
                   struct err *why)
{
    if (dev->driver != target->driver || atomic_load(&dev->removed))
        return 0;
    if (dev->driver->same == NULL || dev->opening)
        return strcmp(dev->uri, uri) == 0;
    return dev->driver->same(dev, target->uri.path, &target->params, why);
}

/* Under the lock. 1: *out_dev is open and counted; 0: nobody has it; -EAGAIN: look again later. */
static int registry_find(struct kv_registry *reg, const char *uri, const struct target *target,
                         struct kv_dev **out_dev, struct err *why)
{
    struct kv_dev *dev;

    list_for_each (dev, &reg->devs, struct kv_dev, link) {
        int rc = is_same(dev, uri, target, why);

        if (rc < 0)
            return rc;
        if (rc == 0)
            continue;
        if (dev->opening || dev->closing)
            return -EAGAIN;
        dev->refs++;
        *out_dev = dev;
        return 1;
    }
    return 0;
}

/* Takes an open device, or enters a new one that is being opened (*out_new). */
static int registry_enter(struct rt_task *t, const char *uri, const struct target *target,
                          struct kv_dev **out_dev, bool *out_new, struct err *why)
{
    CLEANUP(dev_free_p) struct kv_dev *dev = dev_new(target->driver, uri);
    struct kv_registry *reg = registry_get();
    int rc;

    if (dev == NULL)
        return -ENOMEM;
    for (;;) {
        pthread_mutex_lock(&reg->lock);
        rc = registry_find(reg, uri, target, out_dev, why);
        if (rc == 0)
            list_add_tail(&reg->devs, &dev->link);
        pthread_mutex_unlock(&reg->lock);
        if (rc != -EAGAIN)
            break;
        rc = rt_sleep(t, LOOK_AGAIN_NS);
        if (rc < 0)
            return rc;
    }
    if (rc < 0)
        return rc;
    *out_new = rc == 0;
    if (*out_new)
        *out_dev = take_ptr(&dev);
    return 0;
}

static void registry_leave(struct kv_dev *dev)
{
    pthread_mutex_lock(&dev->registry->lock);
    list_del(&dev->link);
    pthread_mutex_unlock(&dev->registry->lock);
    dev_free(dev);
}

void kv_uuid_of(const char *text, uint8_t out_uuid[16])
{
    uint64_t h[2] = {0xcbf29ce484222325ull, 0x6c62272e07bb0142ull};

    /* FNV-1a twice: the same on every machine and in every release. */
    for (const char *p = text; *p != '\0'; p++) {
        h[0] = (h[0] ^ (uint8_t)*p) * 0x100000001b3ull;
        h[1] = (h[1] ^ (uint8_t)*p ^ 0x5a) * 0x100000001b3ull;
    }
    memcpy(out_uuid, h, sizeof(h));
    out_uuid[6] = (uint8_t)((out_uuid[6] & 0x0f) | 0x80); /* version 8: made by its own rule */
    out_uuid[8] = (uint8_t)((out_uuid[8] & 0x3f) | 0x80);
}

/* The driver's part, and the home channel of drivers that have one. */
static int dev_start(struct rt_task *t, struct kv_dev *dev, const struct target *target,
                     struct err *why)
{
    int rc = dev->driver->open(t, dev, target->uri.path, &target->params, &dev->info, why);

    if (rc < 0)
        return rc;
    must(dev->info.key_max >= 1 && dev->info.key_max <= KV_KEY_MAX);
    if (bytes_are_zero(dev->info.uuid, sizeof(dev->info.uuid)))
        kv_uuid_of(dev->uri, dev->info.uuid);
    if (!dev->driver->home && !(dev->driver->some_home && (dev->info.caps & KV_CAP_SNAPSHOT) != 0))
        return 0;
    rc = kv_chan_get(t, dev, &dev->home_chan);
    if (rc < 0)
        dev->driver->close(t, dev);
    return rc;
}

int kv_open(struct rt_task *t, const char *uri, struct kv_dev **out_dev, struct err *why)
{
    CLEANUP(target_free_p) struct target *target = calloc(1, sizeof(*target));
    struct kv_dev *dev = NULL;
    bool new = false;
    int rc;

    if (target == NULL)
        return err_set(why, -ENOMEM, "%.128s: no memory", uri);
    rc = target_parse(uri, target, why);
    if (rc < 0)
        return rc;
    if (why != NULL)
        why->text[0] = '\0';
    rc = registry_enter(t, uri, target, &dev, &new, why);
    if (rc == 0 && new) {
        rc = dev_start(t, dev, target, why);
        if (rc < 0)
            registry_leave(dev);
    }
    if (rc < 0) {
        if (why != NULL && why->text[0] == '\0')
            err_set(why, rc, "%.128s: %s", uri, err_str(rc));
        return rc;
    }
    if (new) {
        pthread_mutex_lock(&dev->registry->lock);
        dev->opening = false;
        pthread_mutex_unlock(&dev->registry->lock);
    }
    *out_dev = dev;
    return 0;
}

static int dev_stop(struct rt_task *t, void *arg)
{
    struct kv_dev *dev = arg;

    rt_task_shield(t, true);
    kv_chan_put(t, dev->home_chan);
    for (unsigned i = 0; i < dev->nchans; i++)
        must(dev->chan[i] == NULL);
    dev->driver->close(t, dev);
    rt_task_shield(t, false);
    return 0;
}

void kv_close(struct rt_task *t, struct kv_dev *dev)
{
    bool last;

    if (dev == NULL)
        return;
    pthread_mutex_lock(&dev->registry->lock);
    must(dev->refs > 0);
    last = --dev->refs == 0;
    if (last)
        dev->closing = true;
    pthread_mutex_unlock(&dev->registry->lock);
    if (!last)
        return;
    rt_task_shield(t, true);
    while (rt_on(t, dev->home, dev_stop, dev) == -ENOMEM)
        (void)rt_sleep(t, LOOK_AGAIN_NS); /* the home reactor has as many tasks as it may */
    rt_task_shield(t, false);
    registry_leave(dev);
}

struct kv_dev *kv_ref(struct kv_dev *dev)
{
    pthread_mutex_lock(&dev->registry->lock);
    dev->refs++;
    pthread_mutex_unlock(&dev->registry->lock);
    return dev;
}

void kv_abandon(void)
{
    struct kv_registry *reg = registry_get();
    struct kv_dev *dev;

    pthread_mutex_lock(&reg->lock);
    list_for_each (dev, &reg->devs, struct kv_dev, link) {
        list_del(&dev->link);
        if (dev->driver->abandon != NULL)
            dev->driver->abandon(dev);
        for (unsigned i = 0; i < dev->nchans; i++)
            kv_chan_free(dev->chan[i]);
        dev_free(dev);
    }
    pthread_mutex_unlock(&reg->lock);
}

/* --- what a device is ------------------------------------------------------------------------- */

const struct kv_info *kv_info(const struct kv_dev *dev)
{
    return &dev->info;
}

const char *kv_uri(const struct kv_dev *dev)
{
    return dev->uri;
}

const struct kv_driver *kv_driver_of(const struct kv_dev *dev)
{
    return dev->driver;
}

void *kv_driver_dev(const struct kv_dev *dev)
{
    return (void *)dev->data;
}

struct usage {
    struct kv_dev *dev;
    uint64_t used, keys;
};

static int usage_at_home(struct rt_task *t, void *arg)
{
    struct usage *u = arg;

    return u->dev->driver->usage(t, u->dev, &u->used, &u->keys);
}

int kv_usage(struct rt_task *t, struct kv_dev *dev, uint64_t *out_used_bytes, uint64_t *out_keys)
{
    struct usage u = {.dev = dev};
    int rc = 0;

    if (atomic_load(&dev->removed))
        return -ENODEV;
    if (dev->driver->usage != NULL)
        rc = rt_on(t, dev->driver->home ? dev->home : rt_self(), usage_at_home, &u);
    if (rc < 0)
        return rc;
    *out_used_bytes = u.used;
    *out_keys = u.keys;
    return 0;
}

/* --- claims ----------------------------------------------------------------------------------- */

static const char *in_the_way(const struct kv_dev *dev, enum kv_claim claim)
{
    if (dev->owner != NULL)
        return dev->owner;
    if (claim != KV_CLAIM_EXCLUSIVE)
        return NULL;
    if (dev->writers > 0)
        return dev->writer;
    return dev->readers > 0 ? dev->reader : NULL;
}

static int claim_locked(struct kv_dev *dev, enum kv_claim claim, const char *holder,
                        struct err *why)
{
    const char *other = in_the_way(dev, claim);

    if (atomic_load(&dev->removed))
        return err_set(why, -ENODEV, "%.128s: the device is gone", dev->uri);
    if (claim != KV_CLAIM_READ && (dev->info.caps & KV_CAP_READ_ONLY) != 0)
        return err_set(why, -EROFS, "%.128s: the device is read-only", dev->uri);
    if (other != NULL)
        return err_set(why, -EBUSY, "%.128s: in use by %.64s", dev->uri, other);
    switch (claim) {
    case KV_CLAIM_READ:
        dev->readers++;
        dev->reader = holder;
        break;
    case KV_CLAIM_SHARED_WRITE:
        dev->writers++;
        dev->writer = holder;
        break;
    case KV_CLAIM_EXCLUSIVE:
        dev->owner = holder;
        break;
    }
    return 0;
}

int kv_claim(struct kv_dev *dev, enum kv_claim claim, const char *holder, struct err *why)
{
    int rc;

    pthread_mutex_lock(&dev->lock);
    rc = claim_locked(dev, claim, holder, why);
    pthread_mutex_unlock(&dev->lock);
    return rc;
}

void kv_unclaim(struct kv_dev *dev, enum kv_claim claim, const char *holder)
{
    pthread_mutex_lock(&dev->lock);
    switch (claim) {
    case KV_CLAIM_READ:
        must(dev->readers > 0);
        dev->readers--;
        break;
    case KV_CLAIM_SHARED_WRITE:
        must(dev->writers > 0);
        dev->writers--;
        break;
    case KV_CLAIM_EXCLUSIVE:
        must(dev->owner != NULL);
        dev->owner = NULL;
        break;
    }
    pthread_mutex_unlock(&dev->lock);
}

/* --- watches and removal ---------------------------------------------------------------------- */

/* On the reactor that watches: everything that has happened since the message was sent. */
static void watch_deliver(struct rt_msg *msg)
{
    struct kv_watch *w = container_of(msg, struct kv_watch, msg);
    uint32_t pending = __atomic_exchange_n(&w->pending, 0, __ATOMIC_ACQ_REL);

    if (w->fn == NULL)
        return; /* taken off meanwhile */
    if ((pending & 1u << KV_EVENT_RESIZED) != 0)
        w->fn(w, KV_EVENT_RESIZED);
    if ((pending & 1u << KV_EVENT_REMOVED) != 0)
        w->fn(w, KV_EVENT_REMOVED);
}

/* Under dev->lock. The message is under way as long as `pending` is not 0. */
static void watch_tell(struct kv_watch *w, enum kv_event ev)
{
    uint32_t before = __atomic_fetch_or(&w->pending, 1u << ev, __ATOMIC_ACQ_REL);

    if (before != 0)
        return;
    w->msg.fn = watch_deliver;
    rt_send(w->reactor, &w->msg);
}

void kv_watch_add(struct kv_dev *dev, struct kv_watch *w)
{
    w->reactor = rt_self();
    w->pending = 0;
    pthread_mutex_lock(&dev->lock);
    list_add_tail(&dev->watches, &w->link);
    if (atomic_load(&dev->removed))
        watch_tell(w, KV_EVENT_REMOVED);
    pthread_mutex_unlock(&dev->lock);
}

struct watch_off {
    struct kv_dev *dev;
    struct kv_watch *w;
};

/* On the reactor that watches, so that no delivery runs meanwhile. */
static int watch_off(struct rt_task *t, void *arg)
{
    struct watch_off *off = arg;

    pthread_mutex_lock(&off->dev->lock);
    list_del(&off->w->link);
    pthread_mutex_unlock(&off->dev->lock);
    off->w->fn = NULL;
    rt_task_shield(t, true);
    while (__atomic_load_n(&off->w->pending, __ATOMIC_ACQUIRE) != 0)
        (void)rt_sleep(t, LOOK_AGAIN_NS / 10); /* a message is under way: a turn or two */
    rt_task_shield(t, false);
    return 0;
}

void kv_watch_del(struct rt_task *t, struct kv_dev *dev, struct kv_watch *w)
{
    struct watch_off off = {.dev = dev, .w = w};

    rt_task_shield(t, true);
    while (rt_on(t, w->reactor, watch_off, &off) == -ENOMEM)
        (void)rt_sleep(t, LOOK_AGAIN_NS);
    rt_task_shield(t, false);
}

void kv_removed(struct kv_dev *dev)
{
    struct kv_watch *w;

    if (atomic_exchange(&dev->removed, true))
        return;
    pthread_mutex_lock(&dev->lock);
    list_for_each (w, &dev->watches, struct kv_watch, link)
        watch_tell(w, KV_EVENT_REMOVED);
    pthread_mutex_unlock(&dev->lock);
}
