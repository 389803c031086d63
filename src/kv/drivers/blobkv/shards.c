/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/shards.h"

#include "kv/drivers/blobkv/large.h"
#include "kv/drivers/blobkv/snap.h"

#include <string.h>

/* --- on all of them --------------------------------------------------------------------------- */

struct each_job {
    struct rt_req done;
    struct bkv_each each; /* what fn gets */
    rt_task_fn fn;
};

static int each_task(struct rt_task *t, void *arg)
{
    struct each_job *job = arg;

    rt_task_shield(t, true);
    return rt_on(t, job->each.s->reactor, job->fn, &job->each);
}

int bkv_each_shard(struct rt_task *t, struct bkv_shards *set, rt_task_fn fn, void *arg)
{
    CLEANUP(free_p) struct each_job *job = calloc(set->n, sizeof(*job));
    int rc = 0;

    if (job == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < set->n; i++) {
        job[i].each = (struct bkv_each){.s = set->shard[i], .arg = arg};
        job[i].fn = fn;
        rt_req_init_task(&job[i].done, t);
        job[i].done.rc = rt_task_start("blobkv shard", each_task, &job[i], &job[i].done, NULL);
        if (job[i].done.rc < 0)
            job[i].fn = NULL;
    }
    for (unsigned i = 0; i < set->n; i++) {
        int one = job[i].fn != NULL ? rt_wait(t, &job[i].done) : job[i].done.rc;

        rc = rc == 0 ? one : rc;
    }
    return rc;
}

/* --- opening and closing ---------------------------------------------------------------------- */

struct opening {
    const char *blk_uri;
    struct err why[BKV_SHARDS_MAX];
    bool is_open[BKV_SHARDS_MAX];
};

static struct bkv *shard_new(struct bkv_shards *set, unsigned i)
{
    struct bkv *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->set = set;
    s->shard = i;
    s->opts = set->opts;
    s->prepare = set->prepare;
    s->reactor = rt_reactor((rt_index(set->home) + i) % rt_reactors());
    set->shard[i] = s;
    return s;
}

static int open_one(struct rt_task *t, void *arg)
{
    struct bkv_each *each = arg;
    struct opening *o = each->arg;
    unsigned i = each->s->shard;
    int rc = 0;

    if (o->is_open[i])
        return 0;
    rc = bkv_open(t, each->s, o->blk_uri, &o->why[i]);
    o->is_open[i] = rc == 0;
    return rc;
}

static int close_one(struct rt_task *t, void *arg)
{
    struct bkv_each *each = arg;
    struct opening *o = each->arg;

    if (o == NULL || o->is_open[each->s->shard])
        bkv_close(t, each->s);
    return 0;
}

static void free_all(struct bkv_shards *set)
{
    for (unsigned i = 0; i < BKV_SHARDS_MAX; i++)
        free(take_ptr(&set->shard[i]));
    set->n = 0;
}

/* The first one, whose lvolstore all use, is the last. `o`: those that are open; NULL: all. */
static void close_all(struct rt_task *t, struct bkv_shards *set, struct opening *o)
{
    for (unsigned i = set->n; i-- > 0;) {
        struct bkv_each each = {.s = set->shard[i], .arg = o};

        while (rt_on(t, each.s->reactor, close_one, &each) == -ENOMEM)
            (void)rt_sleep(t, NS_PER_MS);
    }
    for (unsigned i = 0; i < set->n; i++) {
        while (atomic_load(&set->shard[i]->share_sent))
            (void)rt_sleep(t, NS_PER_MS / 10); /* a message is under way: a turn or two */
    }
    free_all(set);
}

/* The other shards, which the first one tells of. */
static int open_others(struct rt_task *t, struct bkv_shards *set, struct opening *o)
{
    struct bkv *first = set->shard[0];

    for (unsigned i = 1; i < first->nshards; i++) {
        struct bkv *s = shard_new(set, i);

        if (s == NULL)
            return -ENOMEM;
        s->nshards = first->nshards;
        s->making = first->making;
        s->lvs = first->lvs; /* which outlives it */
        s->txn.counted = le64_get(first->txn.last[i]);
        memcpy(s->set_uuid, first->super.uuid, sizeof(s->set_uuid));
        set->n = i + 1;
    }
    return bkv_each_shard(t, set, open_one, o);
}

/* All shards are there: from now on they have to be. */
static int finish_making(struct rt_task *t, struct bkv *first)
{
    struct bkv_super super = first->super;
    int rc;

    super.shards.making = 0;
    rc = bkv_super_write(t, first, &super);
    first->making = rc < 0;
    return rc;
}

static int open_all(struct rt_task *t, struct bkv_shards *set, struct opening *o, struct err *why)
{
    struct bkv *first = shard_new(set, 0);
    int rc = first == NULL ? -ENOMEM : bkv_open(t, first, o->blk_uri, why);

    if (rc < 0)
        return rc;
    set->n = 1;
    o->is_open[0] = true;
    if (first->nshards > 1)
        rc = open_others(t, set, o);
    if (rc == 0 && first->making)
        rc = finish_making(t, first);
    for (unsigned i = 0; rc < 0 && i < set->n; i++) {
        if (o->why[i].text[0] != '\0')
            return err_set(why, rc, "%s", o->why[i].text);
    }
    return rc;
}

int bkv_shards_open(struct rt_task *t, struct bkv_shards *set, const char *blk_uri, struct err *why)
{
    CLEANUP(free_p) struct opening *o = calloc(1, sizeof(*o));
    int rc;

    if (o == NULL)
        return -ENOMEM;
    o->blk_uri = blk_uri;
    set->home = rt_self();
    list_init(&set->line);
    rt_task_shield(t, true);
    rc = open_all(t, set, o, why);
    if (rc < 0)
        close_all(t, set, o);
    rt_task_shield(t, false);
    if (rc < 0)
        return rc;
    set->opts.nshards = set->n;
    memcpy(set->secret, set->shard[0]->secret, sizeof(set->secret));
    set->secret[1] ^= 0x5348415244u; /* not the hash that places keys inside of a shard */
    return 0;
}

void bkv_shards_close(struct rt_task *t, struct bkv_shards *set)
{
    rt_task_shield(t, true);
    close_all(t, set, NULL);
    rt_task_shield(t, false);
}

void bkv_shards_abandon(struct bkv_shards *set)
{
    for (unsigned i = set->n; i-- > 0;) {
        if (i == 0)
            lvs_abandon(&set->shard[i]->lvs);
        bkv_free(set->shard[i]);
    }
    free_all(set);
}

/* --- where requests go ------------------------------------------------------------------------ */

unsigned bkv_shard_of(const struct bkv_shards *set, struct bytes key)
{
    uint64_t hash = bkv_key_hash(set->secret, key);

    return (unsigned)(((hash >> 32) * set->n) >> 32);
}

void bkv_shard_submit(struct bkv *s, struct kv_req *kv)
{
    kv->part = s;
    if (s->reactor == rt_self())
        bkv_shard_here(s, kv);
    else
        kv_to_reactor(kv, s->reactor);
}

/* --- the same request to all ------------------------------------------------------------------ */

struct fan_step {
    struct kv_req kv; /* first */
    struct bkv_fan *fan;
};

struct bkv_fan {
    struct kv_req *kv;
    struct bkv_cut *cut; /* that ends with it */
    unsigned n, left;
    int rc;
    struct fan_step step[];
};

static void fan_done(struct rt_req *req)
{
    struct bkv_fan *fan = ((struct fan_step *)container_of(req, struct kv_req, req))->fan;
    struct kv_req *kv = fan->kv;
    int rc;

    if (fan->rc == 0)
        fan->rc = req->rc;
    if (--fan->left > 0)
        return;
    rc = fan->rc;
    free(fan->cut);
    free(fan);
    kv_complete(kv, rc);
}

struct bkv_fan *bkv_fan_new(struct bkv_shards *set)
{
    struct bkv_fan *fan = calloc(1, sizeof(*fan) + set->n * sizeof(struct fan_step));

    if (fan != NULL)
        fan->n = set->n;
    return fan;
}

void bkv_fan_free(struct bkv_fan *fan)
{
    free(fan);
}

static void fan_submit(struct bkv_shards *set, struct bkv_fan *fan, struct kv_req *kv)
{
    fan->kv = kv;
    fan->left = fan->n;
    for (unsigned i = 0; i < fan->n; i++) {
        struct kv_req *step = &fan->step[i].kv;

        fan->step[i].fan = fan;
        rt_req_init(&step->req, fan_done);
        step->op = kv->op;
        if (fan->cut != NULL)
            step->snap = (struct kv_snap *)fan->cut->snap[i];
        kv_begin_step(kv->chan, step);
    }
    for (unsigned i = 0; i < set->n; i++)
        bkv_shard_submit(set->shard[i], &fan->step[i].kv);
}

static void flush(struct bkv_shards *set, struct kv_req *kv)
{
    struct bkv_fan *fan = bkv_fan_new(set);

    if (fan == NULL)
        kv_complete(kv, -ENOMEM);
    else
        fan_submit(set, fan, kv);
}

/* What it takes was set aside when the snapshot was made: nothing may keep it from ending. */
static void snap_close(struct bkv_shards *set, struct kv_req *kv)
{
    struct bkv_cut *cut = (struct bkv_cut *)kv->snap;

    cut->close->cut = cut;
    fan_submit(set, cut->close, kv);
}

/* --- requests --------------------------------------------------------------------------------- */

static void to_home(struct bkv_shards *set, struct kv_req *kv)
{
    kv->part = NULL;
    if (set->home == rt_self())
        bkv_shards_arrive(kv);
    else
        kv_to_reactor(kv, set->home);
}

void bkv_shards_arrive(struct kv_req *kv)
{
    if (kv->op == KV_BATCH)
        bkv_shards_batch(kv);
    else
        bkv_shards_snap(kv);
}

static void batch(struct bkv_shards *set, struct kv_req *kv)
{
    struct bkv *only = bkv_batch_shard(set, kv);

    if (only != NULL)
        bkv_shard_submit(only, kv);
    else
        to_home(set, kv);
}

void bkv_shards_submit(struct bkv_shards *set, struct kv_req *kv)
{
    switch (kv->op) {
    case KV_LIST:
        bkv_shards_list(kv);
        break;
    case KV_FLUSH:
        flush(set, kv);
        break;
    case KV_BATCH:
        batch(set, kv);
        break;
    case KV_SNAP_OPEN:
        to_home(set, kv);
        break;
    case KV_SNAP_CLOSE:
        snap_close(set, kv);
        break;
    case KV_WRITE:
    case KV_COMMIT:
    case KV_ABORT:
    case KV_READ:
    case KV_READ_CLOSE:
        bkv_shard_submit(bkv_stream_store(kv), kv);
        break;
    default:
        bkv_shard_submit(set->shard[bkv_shard_of(set, kv->key)], kv);
        break;
    }
}
