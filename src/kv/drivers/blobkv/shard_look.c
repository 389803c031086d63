/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at all shards: usage, check and counters are each shard's own, put together. */
#include "kv/drivers/blobkv/shards.h"

#include "blob/check.h"
#include "kv/drivers/blobkv/check.h"

#include <stdio.h>
#include <string.h>

/* --- usage ------------------------------------------------------------------------------------ */

struct usage {
    uint64_t used[BKV_SHARDS_MAX], keys[BKV_SHARDS_MAX];
};

static int usage_one(struct rt_task *t, void *arg)
{
    struct bkv_each *each = arg;
    struct usage *u = each->arg;
    struct bkv *s = each->s;

    /* How many keys there are is known when the leaves know them. */
    if (!s->opts.read_only && s->poison == 0)
        (void)bkv_checkpoint(t, s, NULL, NULL);
    u->used[s->shard] = bkv_space_data(s);
    return bkv_usage_keys(t, s, &u->keys[s->shard]);
}

int bkv_shards_usage(struct rt_task *t, struct kv_dev *dev, uint64_t *out_used, uint64_t *out_keys)
{
    struct bkv_shards *set = kv_driver_dev(dev);
    struct usage u = {.used = {0}};
    int rc = bkv_each_shard(t, set, usage_one, &u);

    if (rc < 0)
        return rc;
    *out_used = *out_keys = 0;
    for (unsigned i = 0; i < set->n; i++) {
        *out_used += u.used[i];
        *out_keys += u.keys[i];
    }
    return 0;
}

/* --- check ------------------------------------------------------------------------------------ */

/* One shard after the other: what they find is told in order, by one at a time. */
struct checking {
    const struct kv_check_opts *opts;
    struct kv_check_report report; /* of one */
    unsigned shard;
    char text[400];
};

static void found_in_shard(void *arg, const struct kv_finding *f)
{
    struct checking *c = arg;
    struct kv_finding with = *f;

    snprintf(c->text, sizeof(c->text), "shard %u: %s", c->shard, f->text);
    with.text = c->text;
    c->opts->found(c->opts->arg, &with);
}

static int check_one(struct rt_task *t, void *arg)
{
    struct bkv_each *each = arg;
    struct checking *c = each->arg;
    struct kv_check_opts opts = *c->opts;

    c->shard = each->s->shard;
    c->report = (struct kv_check_report){0};
    if (each->s->nshards > 1 && opts.found != NULL) {
        opts.found = found_in_shard;
        opts.arg = c;
    }
    return bkv_check(t, each->s, &opts, &c->report);
}

/* --- check: the blobstore below --------------------------------------------------------------- */

static void found_below(void *arg, const struct blob_check_finding *f)
{
    static const enum kv_severity severity[] = {[BLOB_CHECK_NOTE] = KV_NOTE,
                                                [BLOB_CHECK_WARNING] = KV_WARNING,
                                                [BLOB_CHECK_ERROR] = KV_ERROR};
    struct checking *c = arg;
    const struct kv_finding with = {.severity = severity[f->severity],
                                    .structure = f->structure,
                                    .offset = f->offset,
                                    .text = c->text};

    /* What is no more than a note there is none of ours. */
    if (f->severity == BLOB_CHECK_NOTE)
        return;
    c->report.warnings += f->severity == BLOB_CHECK_WARNING;
    c->report.errors += f->severity == BLOB_CHECK_ERROR;
    snprintf(c->text, sizeof(c->text), "the blobstore below: %s", f->text);
    if (c->opts->found != NULL)
        c->opts->found(c->opts->arg, &with);
}

/* Nobody changes it: it is open for reading. */
static int check_below(struct rt_task *t, void *arg)
{
    struct bkv_each *each = arg;
    struct blob_check_opts opts = {.found = found_below, .arg = each->arg};
    CLEANUP(free_p) struct blob_check_report *rep = calloc(1, sizeof(*rep));
    struct blk_chan *chan;
    int rc = rep != NULL ? 0 : -ENOMEM;

    if (rc == 0)
        rc = blk_chan_get(t, blob_store_dev(each->s->lvs.bs), &chan);
    if (rc < 0)
        return rc;
    rc = blob_check(t, chan, &opts, rep);
    blk_chan_put(t, chan);
    return rc == -ENODATA || rc == -ENOTSUP || rc == -EBADMSG ? 0 : rc; /* findings, too */
}

static void add_report(struct kv_check_report *to, const struct kv_check_report *one)
{
    to->errors += one->errors;
    to->warnings += one->warnings;
    to->notes += one->notes;
    to->keys += one->keys;
    to->value_bytes += one->value_bytes;
    to->live_bytes += one->live_bytes;
    to->segments_used += one->segments_used;
    to->segments += one->segments;
}

int bkv_shards_check(struct rt_task *t, struct kv_dev *dev, const struct kv_check_opts *opts,
                     struct kv_check_report *out)
{
    struct bkv_shards *set = kv_driver_dev(dev);
    CLEANUP(free_p) struct checking *c = calloc(1, sizeof(*c));
    int rc = 0;

    if (c == NULL)
        return -ENOMEM;
    c->opts = opts;
    for (unsigned i = 0; i < set->n; i++) {
        struct bkv_each each = {.s = set->shard[i], .arg = c};

        rc = rt_on(t, each.s->reactor, check_one, &each);
        add_report(out, &c->report);
        if (rc < 0)
            return rc;
    }
    if (set->opts.read_only) {
        struct bkv_each each = {.s = set->shard[0], .arg = c};

        c->report = (struct kv_check_report){0};
        rc = check_below(t, &each);
        add_report(out, &c->report);
    }
    return rc;
}

/* --- counters --------------------------------------------------------------------------------- */

#define COUNTERS_MAX 64u

struct counters {
    unsigned n;
    const char *name[COUNTERS_MAX];
    uint64_t value[COUNTERS_MAX]; /* sums */
    uint64_t one[COUNTERS_MAX];   /* of one shard */
};

static void take_counter(void *arg, const char *name, uint64_t value)
{
    struct counters *c = arg;

    must(c->n < COUNTERS_MAX);
    c->name[c->n] = name;
    c->one[c->n++] = value;
}

static int counters_one(struct rt_task *t, void *arg)
{
    struct bkv_each *each = arg;
    struct counters *c = each->arg;

    (void)t;
    c->n = 0;
    bkv_counters(each->s, take_counter, c);
    return 0;
}

static void add_counters(struct counters *c)
{
    for (unsigned k = 0; k < c->n; k++) {
        if (strcmp(c->name[k], "segment_bytes") == 0)
            c->value[k] = c->one[k];
        else if (strcmp(c->name[k], "last_version") == 0)
            c->value[k] = MAX(c->value[k], c->one[k]);
        else
            c->value[k] += c->one[k];
    }
}

/* What tells whether the shards carry their share. */
static void tell_shard(const struct bkv *s, const struct counters *c,
                       void (*each)(void *arg, const char *name, uint64_t value), void *arg)
{
    static const char *const told[] = {"keys_in_index", "live_data_bytes", "ops", "commits",
                                       "flushes"};
    char name[64];

    snprintf(name, sizeof(name), "shard_%u_reactor", s->shard);
    each(arg, name, rt_index(s->reactor));
    for (unsigned k = 0; k < c->n; k++) {
        for (unsigned i = 0; i < ARRAY_LEN(told); i++) {
            if (strcmp(c->name[k], told[i]) != 0)
                continue;
            snprintf(name, sizeof(name), "shard_%u_%s", s->shard, told[i]);
            each(arg, name, c->one[k]);
        }
    }
}

int bkv_shards_counters(struct rt_task *t, struct kv_dev *dev,
                        void (*each)(void *arg, const char *name, uint64_t value), void *arg)
{
    struct bkv_shards *set = kv_driver_dev(dev);
    CLEANUP(free_p) struct counters *c = calloc(1, sizeof(*c));
    struct blob_store_info info;

    if (c == NULL)
        return -ENOMEM;
    blob_store_info(set->shard[0]->lvs.bs, &info);
    each(arg, "shards", set->n);
    each(arg, "flushes_shared", info.flushes_shared);
    for (unsigned i = 0; i < set->n; i++) {
        struct bkv_each one = {.s = set->shard[i], .arg = c};
        int rc = rt_on(t, one.s->reactor, counters_one, &one);

        if (rc < 0)
            return rc;
        add_counters(c);
        if (set->n > 1)
            tell_shard(one.s, c, each, arg);
    }
    for (unsigned k = 0; k < c->n; k++)
        each(arg, c->name[k], c->value[k]);
    return 0;
}
