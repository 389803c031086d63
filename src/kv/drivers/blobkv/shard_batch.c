/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has to happen to several shards as one: batches (txn.h) and snapshots. The home reactor
 * leads, those that have a shard in common one after the other, so that no two of them can wait
 * for each other's shards.
 */
#include "kv/drivers/blobkv/shards.h"

#include "kv/drivers/blobkv/large.h"
#include "kv/drivers/blobkv/snap.h"

#include <string.h>

/* --- whose turn it is ------------------------------------------------------------------------- */

/* Somebody in line for shards, bit i for the i-th. */
struct turn {
    struct list link;
    uint64_t shards;
    struct rt_cond go;
};

static void wake_first(struct bkv_shards *set)
{
    if (!list_empty(&set->line))
        rt_cond_wake_one(&list_first(&set->line, struct turn, link)->go);
}

/* Nobody overtakes: who wants many shards would wait for ever. */
static void lead(struct rt_task *t, struct bkv_shards *set, uint64_t shards)
{
    struct turn me = {.shards = shards};

    list_add_tail(&set->line, &me.link);
    while (set->line.next != &me.link || (set->led & shards) != 0)
        (void)rt_cond_wait(t, &me.go);
    list_del(&me.link);
    set->led |= shards;
    wake_first(set);
}

static void lead_end(struct bkv_shards *set, uint64_t shards)
{
    set->led &= ~shards;
    wake_first(set);
}

/* --- a batch ---------------------------------------------------------------------------------- */

struct batch;

/* One shard's part, on its way. */
struct part {
    struct kv_req kv; /* first */
    struct bkv_txn_part txn;
    struct bkv *s;
    struct batch *batch;
    struct rt_msg msg; /* prepared: to the home reactor; the verdict: to the shard */
    enum bkv_verdict verdict;
    bool sent, prepared, ended;
};

struct batch {
    struct bkv_shards *set;
    struct kv_req *kv;
    struct kv_batch_item *item; /* those of shard 0, then those of shard 1, ... */
    struct rt_cond changed;
    struct part part[];
};

struct bkv *bkv_batch_shard(const struct bkv_shards *set, const struct kv_req *kv)
{
    unsigned first = bkv_shard_of(set, kv->batch[0].key);

    for (unsigned i = 1; i < kv->nbatch; i++) {
        if (bkv_shard_of(set, kv->batch[i].key) != first)
            return NULL;
    }
    return set->shard[first];
}

static void part_done(struct rt_req *req)
{
    struct part *p = (struct part *)container_of(req, struct kv_req, req);

    p->ended = true;
    rt_cond_wake_all(&p->batch->changed);
}

static void prepared_arrives(struct rt_msg *msg)
{
    struct part *p = container_of(msg, struct part, msg);

    p->prepared = true;
    rt_cond_wake_all(&p->batch->changed);
}

/* On the shard's reactor. */
static void prepared(struct bkv_txn_part *txn)
{
    struct part *p = container_of(txn, struct part, txn);

    p->msg.fn = prepared_arrives;
    rt_send(p->batch->set->home, &p->msg);
}

static void verdict_arrives(struct rt_msg *msg)
{
    struct part *p = container_of(msg, struct part, msg);

    bkv_txn_decide(p->s, p->verdict);
}

void bkv_part_here(struct bkv *s, struct kv_req *kv)
{
    bkv_batch_part(s, kv, &((struct part *)kv)->txn);
}

static void batch_free(struct batch **pb)
{
    if (*pb == NULL)
        return;
    free((*pb)->item);
    free(*pb);
}

/* Divides the items among the shards; of each shard's they keep their order. */
static struct batch *batch_new(struct bkv_shards *set, struct kv_req *kv)
{
    struct batch *b = calloc(1, sizeof(*b) + set->n * sizeof(struct part));
    CLEANUP(free_p) uint8_t *of = malloc(kv->nbatch);
    struct kv_batch_item *at;

    if (b == NULL || of == NULL) {
        free(b);
        return NULL;
    }
    b->set = set;
    b->kv = kv;
    b->item = at = malloc(kv->nbatch * sizeof(*b->item));
    if (at == NULL) {
        free(b);
        return NULL;
    }
    for (unsigned i = 0; i < kv->nbatch; i++) {
        of[i] = (uint8_t)bkv_shard_of(set, kv->batch[i].key);
        b->part[of[i]].kv.nbatch++;
    }
    for (unsigned k = 0; k < set->n; k++) {
        b->part[k].s = set->shard[k];
        b->part[k].batch = b;
        b->part[k].kv.batch = at;
        at += b->part[k].kv.nbatch;
        b->part[k].kv.nbatch = 0;
    }
    for (unsigned i = 0; i < kv->nbatch; i++) {
        struct kv_req *part = &b->part[of[i]].kv;

        ((struct kv_batch_item *)part->batch)[part->nbatch++] = kv->batch[i];
    }
    return b;
}

static void send_part(struct batch *b, unsigned i, uint8_t kind, uint64_t id, uint64_t shards)
{
    struct part *p = &b->part[i];

    p->txn = (struct bkv_txn_part){.id = id, .kind = kind, .shards = shards, .prepared = prepared};
    p->sent = true;
    rt_req_init(&p->kv.req, part_done);
    p->kv.op = BKV_OP_PART;
    kv_begin_step(b->kv->chan, &p->kv);
    bkv_shard_submit(p->s, &p->kv);
}

/* Waits until all parts that were sent have ended, or are at least prepared. */
static void wait_parts(struct rt_task *t, struct batch *b, bool prepared_will_do)
{
    for (unsigned i = 0; i < b->set->n; i++) {
        const struct part *p = &b->part[i];

        while (p->sent && !p->ended && !(prepared_will_do && p->prepared))
            (void)rt_cond_wait(t, &b->changed);
    }
}

/* Those that have to be prepared; in shard 0, which commits, nothing waits for the others. */
static uint64_t shards_of(const struct batch *b)
{
    uint64_t shards = 0;

    for (unsigned i = 1; i < b->set->n; i++) {
        if (b->part[i].kv.nbatch > 0)
            shards |= 1ull << i;
    }
    return shards;
}

static void prepare(struct rt_task *t, struct batch *b, uint64_t id, uint64_t shards)
{
    for (unsigned i = 1; i < b->set->n; i++) {
        if ((shards >> i & 1) != 0)
            send_part(b, i, BKV_TXN_PREPARED, id, 0);
    }
    wait_parts(t, b, true);
}

/* What has kept a part from being prepared; 0: all are. */
static int failure(const struct batch *b)
{
    for (unsigned i = 1; i < b->set->n; i++) {
        if (b->part[i].sent && !b->part[i].prepared)
            return b->part[i].kv.req.rc;
    }
    return 0;
}

static void tell(struct batch *b, enum bkv_verdict verdict)
{
    for (unsigned i = 1; i < b->set->n; i++) {
        struct part *p = &b->part[i];

        if (!p->prepared)
            continue;
        p->verdict = verdict;
        p->msg.fn = verdict_arrives;
        rt_send(p->s->reactor, &p->msg);
    }
}

static int run_batch(struct rt_task *t, struct batch *b, uint64_t shards)
{
    enum bkv_verdict verdict = BKV_TXN_VOID;
    struct kv_req *kv = b->kv;
    uint64_t id;
    int rc;

    do {
        rt_random(&id, sizeof(id));
    } while (id == 0);
    prepare(t, b, id, shards);
    rc = failure(b);
    if (rc == 0) {
        send_part(b, 0, BKV_TXN_COMMITTED, id, shards);
        while (!b->part[0].ended)
            (void)rt_cond_wait(t, &b->changed);
        rc = b->part[0].kv.req.rc;
        verdict = rc == 0                  ? BKV_TXN_COUNTS
                  : b->part[0].txn.unknown ? BKV_TXN_UNKNOWN
                                           : BKV_TXN_VOID;
    }
    tell(b, verdict);
    wait_parts(t, b, false);
    if (rc == 0)
        kv->version = b->part[bkv_shard_of(b->set, kv->batch[kv->nbatch - 1].key)].kv.version;
    return rc;
}

static int batch_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv_shards *set = kv_driver_dev(kv_chan_dev(kv->chan));
    CLEANUP(batch_free) struct batch *b = batch_new(set, kv);
    int rc = -ENOMEM;

    rt_task_shield(t, true);
    if (b != NULL) {
        uint64_t shards = shards_of(b);

        lead(t, set, shards);
        rc = run_batch(t, b, shards);
        lead_end(set, shards);
    }
    kv_complete(kv, rc);
    return 0;
}

void bkv_shards_batch(struct kv_req *kv)
{
    int rc = rt_task_start("blobkv batch", batch_task, kv, NULL, NULL);

    if (rc < 0)
        kv_complete(kv, rc);
}

/* --- a snapshot ------------------------------------------------------------------------------- */

struct cutting;

/* One shard's. */
struct cut_part {
    struct bkv_stop stop; /* first */
    struct cutting *all;
    struct bkv *s;
    struct bkv_snap *snap;
    struct rt_msg msg;
    struct rt_req done;
    bool stopped, counted;
};

struct cutting {
    struct bkv_shards *set;
    unsigned left; /* shards that have neither stopped nor failed */
    struct cut_part part[];
};

static void go_arrives(struct rt_msg *msg)
{
    struct cut_part *p = container_of(msg, struct cut_part, msg);

    bkv_stop_end(p->s, &p->stop);
}

/* One more has stopped, or will not. When that is all of them, nothing changes anywhere: now. */
static void count(struct cut_part *p)
{
    struct cutting *c = p->all;

    if (p->counted)
        return;
    p->counted = true;
    if (--c->left > 0)
        return;
    for (unsigned i = 0; i < c->set->n; i++) {
        if (!c->part[i].stopped)
            continue;
        c->part[i].msg.fn = go_arrives;
        rt_send(c->part[i].s->reactor, &c->part[i].msg);
    }
}

static void stopped_arrives(struct rt_msg *msg)
{
    struct cut_part *p = container_of(msg, struct cut_part, msg);

    p->stopped = true;
    count(p);
}

/* On the shard's reactor. */
static void stopped(struct bkv_stop *stop)
{
    struct cut_part *p = (struct cut_part *)stop;

    p->msg.fn = stopped_arrives;
    rt_send(p->all->set->home, &p->msg);
}

static int cut_there(struct rt_task *t, void *arg)
{
    struct cut_part *p = arg;

    return bkv_snap_make(t, p->s, &p->stop, &p->snap);
}

static int cut_here(struct rt_task *t, void *arg)
{
    struct cut_part *p = arg;
    int rc;

    rt_task_shield(t, true);
    rc = rt_on(t, p->s->reactor, cut_there, p);
    count(p);
    return rc;
}

static int end_there(struct rt_task *t, void *arg)
{
    struct cut_part *p = arg;

    (void)t;
    bkv_snap_end(p->snap);
    return 0;
}

static int cut_all(struct rt_task *t, struct cutting *c)
{
    unsigned n = c->set->n;
    int rc = 0;

    for (unsigned i = 0; i < n; i++) {
        struct cut_part *p = &c->part[i];

        p->stop.stopped = stopped;
        p->all = c;
        p->s = c->set->shard[i];
        rt_req_init_task(&p->done, t);
        p->done.rc = rt_task_start("blobkv snapshot", cut_here, p, &p->done, NULL);
    }
    for (unsigned i = 0; i < n; i++) {
        if (c->part[i].done.state == RT_REQ_IDLE)
            count(&c->part[i]); /* it could not begin */
    }
    for (unsigned i = 0; i < n; i++) {
        struct cut_part *p = &c->part[i];
        int one = p->done.state != RT_REQ_IDLE ? rt_wait(t, &p->done) : p->done.rc;

        rc = rc == 0 ? one : rc;
    }
    for (unsigned i = 0; rc < 0 && i < n; i++) {
        struct cut_part *p = &c->part[i];

        while (p->snap != NULL && rt_on(t, p->s->reactor, end_there, p) == -ENOMEM)
            (void)rt_sleep(t, NS_PER_MS);
    }
    return rc;
}

static int snap_open(struct rt_task *t, struct bkv_shards *set, struct kv_req *kv)
{
    CLEANUP(free_p) struct cutting *c = calloc(1, sizeof(*c) + set->n * sizeof(c->part[0]));
    CLEANUP(free_p) struct bkv_cut *cut = calloc(1, sizeof(*cut));
    int rc;

    if (c == NULL || cut == NULL)
        return -ENOMEM;
    cut->close = bkv_fan_new(set);
    if (cut->close == NULL)
        return -ENOMEM;
    c->set = set;
    c->left = set->n;
    lead(t, set, UINT64_MAX);
    rc = cut_all(t, c);
    lead_end(set, UINT64_MAX);
    if (rc < 0) {
        bkv_fan_free(cut->close);
        return rc;
    }
    for (unsigned i = 0; i < set->n; i++)
        cut->snap[i] = c->part[i].snap;
    kv->snap = (struct kv_snap *)take_ptr(&cut);
    return 0;
}

static int snap_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;

    rt_task_shield(t, true);
    kv_complete(kv, snap_open(t, kv_driver_dev(kv_chan_dev(kv->chan)), kv));
    return 0;
}

void bkv_shards_snap(struct kv_req *kv)
{
    int rc = rt_task_start("blobkv snapshot", snap_task, kv, NULL, NULL);

    if (rc < 0)
        kv_complete(kv, rc);
}
