/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kvasir by the interface its own front ends use: one reactor on a thread of its own, a request per
 * worker, no other threads. Any URI of a key-value device will do.
 */
#include "engine.h"

#include "kv/drivers/blobkv/shards.h"

#include <stdio.h>

#define LIST_BYTES 65536u
#define SCAN_DEPTH 32u
#define SETTLED_NS (3 * NS_PER_S)
#define SETTLE_MAX_NS (120 * NS_PER_S)

struct kvs {
    struct rt *rt;
    struct kv_dev *dev;
    struct kv_chan *chan;
    struct counters counters;
};

/* A worker with its request. */
struct slot {
    struct kv_req req; /* first */
    struct iovec iov;
    struct worker *w;
    struct drive *drive;
    uint8_t last[BENCH_KEY_BYTES]; /* LIST: from where it goes on */
    uint8_t *list;                 /* LIST: LIST_BYTES */
};

struct drive {
    struct bench *b;
    struct load *load;
    unsigned reactor; /* every reactors-th worker, from this one on, is here */
    struct kv_chan *chan;
    unsigned active;
    struct rt_cond ended;
};

/* --- open and close --------------------------------------------------------------------------- */

static int open_task(struct rt_task *t, void *arg)
{
    struct bench *b = arg;
    struct kvs *k = b->state;
    struct err why = {""};
    int rc = kv_open(t, b->uri, &k->dev, &why);

    /* The kernel lets go of the files of a process that was killed a moment later. */
    for (unsigned i = 0; rc == -EBUSY && i < 500; i++) {
        rt_sleep(t, 10 * NS_PER_MS);
        rc = kv_open(t, b->uri, &k->dev, &why);
    }
    if (rc < 0) {
        fprintf(stderr, "kvasir: %s\n", why.text);
        return rc;
    }
    return kv_chan_get(t, k->dev, &k->chan);
}

static int close_task(struct rt_task *t, void *arg)
{
    struct kvs *k = arg;

    if (k->chan != NULL)
        kv_chan_put(t, k->chan);
    if (k->dev != NULL)
        kv_close(t, k->dev);
    return 0;
}

static enum rt_poll poll_of(const char *name)
{
    if (strcmp(name, "always") == 0)
        return RT_POLL_ALWAYS;
    return strcmp(name, "adaptive") == 0 ? RT_POLL_ADAPTIVE : RT_POLL_NEVER;
}

static void kvs_close(struct bench *b)
{
    struct kvs *k = b->state;

    if (k->rt != NULL) {
        rt_call(k->rt, 0, close_task, k);
        rt_stop(k->rt);
    }
    free(k);
}

static int kvs_open(struct bench *b)
{
    struct rt_config cfg = {.poll = poll_of(b->poll), .reactors = b->reactors};
    struct kvs *k = calloc(1, sizeof(*k));
    struct err why = {""};
    int rc;

    if (k == NULL)
        return -ENOMEM;
    b->state = k;
    rc = rt_start(&cfg, &k->rt, &why);
    if (rc < 0)
        fprintf(stderr, "kvasir: %s\n", why.text);
    return rc < 0 ? rc : rt_call(k->rt, 0, open_task, b);
}

/* --- loads ------------------------------------------------------------------------------------ */

static void submit(struct slot *s)
{
    static const enum kv_op ops[] = {
        [OP_PUT] = KV_STORE, [OP_GET] = KV_RETRIEVE, [OP_DELETE] = KV_DELETE, [OP_LIST] = KV_LIST};
    const struct bench *b = s->drive->b;
    struct worker *w = s->w;
    const void *data = w->kind == OP_PUT ? w->val : w->kind == OP_LIST ? s->list : w->buf;
    rt_req_fn done = s->req.req.done;

    s->iov = (struct iovec){.iov_base = (void *)(uintptr_t)data,
                            .iov_len = w->kind == OP_LIST ? LIST_BYTES : b->val_bytes};
    rt_req_init(&s->req.req, done);
    s->req.op = (uint8_t)ops[w->kind];
    s->req.flags = KV_F_NO_VERSION;
    s->req.key = bytes_make(w->key, BENCH_KEY_BYTES);
    s->req.iov = &s->iov;
    s->req.iovcnt = w->kind == OP_DELETE ? 0 : 1;
    s->req.len = w->kind == OP_DELETE ? 0 : s->iov.iov_len;
    if (w->kind == OP_DELETE || w->kind == OP_LIST)
        s->req.flags = 0;
    if (w->kind == OP_LIST) {
        s->req.key = bytes_make(s->last, w->got_len > 0 ? BENCH_KEY_BYTES : 0);
        s->req.flags = w->got_len > 0 ? KV_F_AFTER : 0;
        s->req.prefix = bytes_make(w->key, BENCH_PREFIX_BYTES);
    }
    kv_submit(s->drive->chan, &s->req);
}

static void next(struct slot *s)
{
    if (load_next(s->w)) {
        submit(s);
        return;
    }
    if (--s->drive->active == 0)
        rt_cond_wake_all(&s->drive->ended);
}

/* Takes in a page. True: the list goes on. */
static bool list_page(struct slot *s)
{
    struct kv_list_iter it = kv_list_begin(s->list, s->req.moved);
    struct bytes key;

    while (kv_list_next(&it, &key)) {
        if (key.len == BENCH_KEY_BYTES)
            memcpy(s->last, key.ptr, BENCH_KEY_BYTES);
        s->w->got_len++;
    }
    return s->req.more && s->req.moved > 0;
}

static void slot_done(struct rt_req *req)
{
    struct slot *s = container_of(req, struct slot, req.req);

    if (s->w->kind == OP_GET)
        s->w->got_len = s->req.value_len;
    if (s->w->kind == OP_LIST && req->rc >= 0 && list_page(s)) {
        submit(s);
        return;
    }
    load_done(s->w, req->rc);
    next(s);
}

static int drive_some(struct rt_task *t, struct drive *d)
{
    CLEANUP(free_p) struct slot *slot = calloc(d->load->depth, sizeof(*slot));
    CLEANUP(free_p) uint8_t *lists = NULL;

    if (slot == NULL)
        return -ENOMEM;
    if (d->load->kind == OP_LIST) {
        lists = malloc((size_t)d->load->depth * LIST_BYTES);
        if (lists == NULL)
            return -ENOMEM;
    }
    for (unsigned i = d->reactor; i < d->load->depth; i += d->b->reactors)
        d->active++;
    for (unsigned i = d->reactor; i < d->load->depth; i += d->b->reactors) {
        slot[i] = (struct slot){.w = &d->load->workers[i], .drive = d};
        slot[i].list = lists == NULL ? NULL : lists + (size_t)i * LIST_BYTES;
        slot[i].req.req.done = slot_done;
        next(&slot[i]);
    }
    while (d->active > 0)
        rt_cond_wait(t, &d->ended);
    return 0;
}

static int drive_there(struct rt_task *t, void *arg)
{
    struct drive *d = arg;
    int rc = kv_chan_get(t, ((struct kvs *)d->b->state)->dev, &d->chan);

    if (rc == 0)
        rc = drive_some(t, d);
    kv_chan_put(t, d->chan);
    return rc;
}

struct driving {
    struct rt_req done;
    struct drive drive;
};

static int drive_from_here(struct rt_task *t, void *arg)
{
    struct driving *d = arg;

    return rt_on(t, rt_reactor(d->drive.reactor), drive_there, &d->drive);
}

/* All reactors at the same time. */
static int drive_task(struct rt_task *t, void *arg)
{
    const struct drive *all = arg;
    CLEANUP(free_p) struct driving *d = calloc(all->b->reactors, sizeof(*d));
    int rc = 0;

    if (d == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < all->b->reactors; i++) {
        d[i].drive = *all;
        d[i].drive.reactor = i;
        rt_req_init_task(&d[i].done, t);
        must(rt_task_start("drive", drive_from_here, &d[i], &d[i].done, NULL) == 0);
    }
    for (unsigned i = 0; i < all->b->reactors; i++) {
        int one = rt_wait(t, &d[i].done);

        rc = rc == 0 ? one : rc;
    }
    return rc;
}

static int kvs_drive(struct bench *b, struct load *load)
{
    struct drive d = {.b = b, .load = load};
    struct kvs *k = b->state;

    return rt_call(k->rt, 0, drive_task, &d);
}

/* --- scans ------------------------------------------------------------------------------------ */

/*
 * Keys come in pages, of which the next one is on its way while the values of this one are read,
 * SCAN_DEPTH at a time.
 */
struct page {
    struct kv_req req; /* first */
    struct iovec iov;
    struct pages *pages;
    bool full; /* read, and not yet used up */
    struct kv_list_iter it;
    uint8_t buf[LIST_BYTES];
};

struct reader {
    struct kv_req req; /* first */
    struct iovec iov;
    struct pages *pages;
    bool busy;
    uint8_t key[BENCH_KEY_BYTES];
    uint8_t *buf;
};

struct pages {
    struct bench *b;
    struct scan *scan;
    struct page page[2];
    unsigned now;       /* which one is being used */
    bool listing, last; /* the next page is on its way; there is none after it */
    uint8_t from[BENCH_KEY_BYTES];
    bool from_set;
    unsigned reading;
    int rc;
    struct reader reader[SCAN_DEPTH];
    struct rt_cond changed;
};

static void list_done(struct rt_req *req)
{
    struct page *p = container_of(req, struct page, req.req);
    struct pages *s = p->pages;
    struct bytes key = {0};

    s->listing = false;
    s->last = req->rc < 0 || !p->req.more;
    if (req->rc < 0)
        s->rc = req->rc;
    p->it = kv_list_begin(p->buf, req->rc < 0 ? 0 : p->req.moved);
    p->full = true;
    for (struct kv_list_iter it = p->it; kv_list_next(&it, &key);) {
        if (!s->scan->values)
            scan_key(s->scan, key.ptr, key.len);
    }
    if (key.len == BENCH_KEY_BYTES) {
        memcpy(s->from, key.ptr, BENCH_KEY_BYTES);
        s->from_set = true;
    }
    rt_cond_wake_all(&s->changed);
}

static void list_start(struct pages *s, struct page *p)
{
    struct kvs *k = s->b->state;

    p->iov = (struct iovec){.iov_base = p->buf, .iov_len = sizeof(p->buf)};
    p->pages = s;
    p->req = (struct kv_req){.op = KV_LIST,
                             .iov = &p->iov,
                             .iovcnt = 1,
                             .flags = s->from_set ? KV_F_AFTER : 0,
                             .key = bytes_make(s->from, s->from_set ? sizeof(s->from) : 0)};
    rt_req_init(&p->req.req, list_done);
    s->listing = true;
    kv_submit(k->chan, &p->req);
}

static void read_done(struct rt_req *req)
{
    struct reader *r = container_of(req, struct reader, req.req);
    struct pages *s = r->pages;

    if (req->rc < 0)
        s->rc = req->rc;
    else
        s->scan->bytes += r->req.value_len;
    r->busy = false;
    s->reading--;
    rt_cond_wake_all(&s->changed);
}

static void read_start(struct pages *s, struct reader *r, struct bytes key)
{
    struct kvs *k = s->b->state;

    memcpy(r->key, key.ptr, MIN(key.len, sizeof(r->key)));
    r->iov = (struct iovec){.iov_base = r->buf, .iov_len = s->b->val_bytes};
    r->req = (struct kv_req){.op = KV_RETRIEVE,
                             .flags = KV_F_NO_VERSION,
                             .key = bytes_make(r->key, key.len),
                             .iov = &r->iov,
                             .iovcnt = 1,
                             .len = r->iov.iov_len};
    rt_req_init(&r->req.req, read_done);
    r->busy = true;
    s->reading++;
    kv_submit(k->chan, &r->req);
}

static struct reader *free_reader(struct pages *s)
{
    for (unsigned i = 0; i < SCAN_DEPTH; i++) {
        if (!s->reader[i].busy)
            return &s->reader[i];
    }
    return NULL;
}

/* Uses what is there. False: it has to wait. */
static bool scan_step(struct pages *s)
{
    struct page *p = &s->page[s->now], *other = &s->page[!s->now];
    struct reader *r = s->scan->values ? free_reader(s) : NULL;
    struct bytes key;

    if (!s->listing && !s->last && !other->full)
        list_start(s, other);
    if (s->scan->values && r == NULL)
        return false;
    /* Without values all keys have been met when the page came: see list_done(). */
    if (p->full && r != NULL && kv_list_next(&p->it, &key)) {
        scan_key(s->scan, key.ptr, key.len);
        read_start(s, r, key);
        return true;
    }
    p->full = false;
    if (!other->full)
        return false;
    s->now = !s->now;
    return true;
}

static int scan_task(struct rt_task *t, void *arg)
{
    struct pages *s = arg;
    uint64_t steps = 0;

    for (unsigned i = 0; i < SCAN_DEPTH; i++) {
        s->reader[i].pages = s;
        s->reader[i].buf = malloc(s->b->val_bytes);
        if (s->reader[i].buf == NULL)
            return -ENOMEM;
    }
    while (s->rc == 0 && s->scan->keys < s->scan->keys_max) {
        if (++steps % 256 == 0 && bench_now_ns() > s->scan->end_ns)
            break;
        if (scan_step(s))
            continue;
        if (!s->listing && s->reading == 0)
            break;
        rt_cond_wait(t, &s->changed);
    }
    while (s->listing || s->reading > 0)
        rt_cond_wait(t, &s->changed);
    for (unsigned i = 0; i < SCAN_DEPTH; i++)
        free(s->reader[i].buf);
    return s->rc;
}

static int kvs_scan(struct bench *b, struct scan *scan)
{
    CLEANUP(free_p) struct pages *s = calloc(1, sizeof(*s));
    struct kvs *k = b->state;

    if (s == NULL)
        return -ENOMEM;
    s->b = b;
    s->scan = scan;
    return rt_call(k->rt, 0, scan_task, s);
}

/* --- flush and collection --------------------------------------------------------------------- */

static int flush_task(struct rt_task *t, void *arg)
{
    struct kvs *k = arg;

    return kv_flush(t, k->chan);
}

static int kvs_flush(struct bench *b)
{
    struct kvs *k = b->state;

    return rt_call(k->rt, 0, flush_task, k);
}

static int counters_task(struct rt_task *t, void *arg)
{
    struct counters *out = arg;
    struct kvs *k = container_of(out, struct kvs, counters);
    const struct bkv_shards *set = kv_driver_dev(k->dev);

    /* Nothing is under way: what other reactors have counted can be read from here. */
    *out = (struct counters){.known = true};
    for (unsigned i = 0; i < set->n; i++) {
        const struct bkv *s = set->shard[i];

        out->prepared_bytes += s->stats.prepared_bytes;
        out->log_bytes += s->stats.log_bytes;
        out->large_bytes += s->stats.large_bytes;
        out->moved_bytes += s->stats.moved_bytes;
        out->index_bytes += s->stats.index_bytes + s->stats.checkpoint_bytes;
        out->checkpoints += s->stats.checkpoints;
        out->segments_collected += s->stats.gc_segments;
        out->cached += s->stats.get_cache;
        out->flushes += s->stats.flushes;
        out->key_bytes += bkv_hot_bytes(s->hot) + bkv_tree_bytes(s->tree);
        out->keys += bkv_tree_nkeys(s->tree) + bkv_memtab_count(s->active);
    }
    return 0;
}

static void kvs_counters(struct bench *b, struct counters *out)
{
    struct kvs *k = b->state;

    if (k->dev == NULL || strcmp(kv_driver_of(k->dev)->name, "blob") != 0)
        return;
    rt_call(k->rt, 0, counters_task, &k->counters);
    *out = k->counters;
}

/* It collects by itself, without haste: waits until it has nothing more to do. */
static int collect_task(struct rt_task *t, void *arg)
{
    struct bench *b = arg;
    struct kvs *k = b->state;
    bool counts = strcmp(kv_driver_of(k->dev)->name, "blob") == 0;
    const struct bkv_shards *set = kv_driver_dev(k->dev);
    uint64_t since = rt_now(), end = since + SETTLE_MAX_NS, seen = 0;

    while (rt_now() < end && rt_now() - since < SETTLED_NS) {
        uint64_t now = cost_disk_bytes(b->dir);

        for (unsigned i = 0; counts && i < set->n; i++)
            now += set->shard[i]->stats.gc_segments + set->shard[i]->stats.segments_released;
        if (now != seen)
            since = rt_now();
        seen = now;
        rt_sleep(t, 200 * NS_PER_MS);
    }
    return 0;
}

static int kvs_collect(struct bench *b)
{
    struct kvs *k = b->state;

    return rt_call(k->rt, 0, collect_task, b);
}

const struct engine engine_kvasir = {
    .name = "kvasir",
    .open = kvs_open,
    .close = kvs_close,
    .drive = kvs_drive,
    .scan = kvs_scan,
    .flush = kvs_flush,
    .counters = kvs_counters,
    .collect = kvs_collect,
};
