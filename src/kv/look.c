/* SPDX-License-Identifier: Apache-2.0 */
/* What a driver can tell of the inside of its device: check and counters, where it lives. */
#include "kv/internal.h"

struct look {
    struct kv_dev *dev;
    const struct kv_check_opts *opts;
    struct kv_check_report *report;
    void (*each)(void *arg, const char *name, uint64_t value);
    void *arg;
};

static struct rt_reactor *where(const struct kv_dev *dev)
{
    return dev->driver->home ? dev->home : rt_self();
}

static int check_there(struct rt_task *t, void *arg)
{
    struct look *l = arg;

    return l->dev->driver->check(t, l->dev, l->opts, l->report);
}

int kv_check(struct rt_task *t, struct kv_dev *dev, const struct kv_check_opts *opts,
             struct kv_check_report *out)
{
    static const struct kv_check_opts none;
    struct look l = {.dev = dev, .opts = opts != NULL ? opts : &none, .report = out};

    if (dev->driver->check == NULL)
        return -ENOTSUP;
    *out = (struct kv_check_report){0};
    return rt_on(t, where(dev), check_there, &l);
}

static int counters_there(struct rt_task *t, void *arg)
{
    struct look *l = arg;

    return l->dev->driver->counters(t, l->dev, l->each, l->arg);
}

int kv_counters(struct rt_task *t, struct kv_dev *dev,
                void (*each)(void *arg, const char *name, uint64_t value), void *arg)
{
    struct look l = {.dev = dev, .each = each, .arg = arg};

    if (dev->driver->counters == NULL)
        return -ENOTSUP;
    return rt_on(t, where(dev), counters_there, &l);
}
