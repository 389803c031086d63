/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Long random histories without crashes: workers with keys of their own, snapshots, streams,
 * batches, and restarts in good order; after each the whole store is compared with the model.
 */
#include "history.h"

#include "kv.h"

#include "blk/blk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct history {
    const struct history_opts *o;
    struct kv_work w;
    struct look look;
    uint64_t restarts;
};

static int round_of(struct rt_task *t, struct history *h, struct kv_dev *dev)
{
    uint8_t at[KVM_KEYS];
    int rc = kv_work(t, dev, &h->w);

    if (rc < 0) {
        snprintf(h->look.why, sizeof(h->look.why), "%s", h->w.why);
        return rc;
    }
    kvm_to(UINT32_MAX);
    rc = kv_look(t, dev, &h->look, at);
    for (unsigned k = 0; rc == 0 && k < KVM_KEYS; k++)
        if (at[k] != kvm_view(k)->n - 1)
            rc = look_bad(&h->look, "key %u is an old version", k);
    return rc;
}

static int history_run(struct rt_task *t, void *arg)
{
    struct history *h = arg;
    struct blk_dev *held = NULL;
    struct kv_dev *dev = NULL;
    struct err why = {""};
    int rc = h->o->hold != NULL ? blk_open(t, h->o->hold, &held, &why) : 0;

    if (rc < 0)
        return look_bad(&h->look, "%s", why.text);
    while (rc == 0 && h->w.done < h->o->ops) {
        if (dev == NULL)
            rc = kv_open(t, h->o->uri, &dev, &why);
        if (rc < 0) {
            look_bad(&h->look, "cannot be opened: %s", why.text);
            break;
        }
        h->w.seed++;
        rc = round_of(t, h, dev);
        if (h->o->keeps) {
            kv_close(t, dev);
            dev = NULL;
            h->restarts++;
        }
    }
    if (dev != NULL)
        kv_close(t, dev);
    if (held != NULL)
        blk_close(t, held);
    return rc;
}

int history(const struct history_opts *o)
{
    struct history h = {.o = o,
                        .w = {.seed = o->seed << 20,
                              .ops = o->round,
                              .reads_in_16 = o->churn ? 2 : 8,
                              .churn = o->churn}};
    struct rt_config cfg = {.reactors = o->reactors};
    struct err why = {""};
    int rc;

    kv_work_reset(true);
    rc = rt_run(&cfg, history_run, &h, &why);
    printf("crash: history: seed %llu on %s: %llu operations, %llu restarts, %llu refused%s%s%s\n",
           (unsigned long long)o->seed, o->uri, (unsigned long long)h.w.done,
           (unsigned long long)h.restarts, (unsigned long long)h.w.refused, rc < 0 ? ": " : "",
           rc < 0 ? h.look.why : "", why.text);
    return rc;
}
