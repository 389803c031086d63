/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of a get. The location table names a sector; the record is in the cache, or one read
 * away, and says itself whether it is of this key. When the table does not know, memtables and
 * cached leaves do; only a leaf that has to be read takes a task.
 */
#include "kv/drivers/blobkv/large.h"

#include <string.h>

#define HITS_MAX 3u

/* One get on its way: what its read needs. */
struct bkv_read {
    struct blob_req blob; /* first */
    struct bkv *s;
    struct kv_req *kv;
    struct rt_buf *buf;
    struct iovec iov;
    uint64_t hash, addr; /* of the first sector that is read */
    uint32_t gen, skip;  /* the record begins so far behind it, or in that sector of 512 bytes */
    unsigned nhits, at;
    struct bkv_hot_hit hit[HITS_MAX];
    uint64_t checkpoint_no; /* when the table was asked */
};

struct bkv_get_waiting {
    struct list link;
};

int bkv_gets_init(struct bkv *s)
{
    static_assert(sizeof(struct bkv_get_waiting) <= sizeof(((struct kv_req *)0)->driver), "room");
    list_init(&s->read_waiting);
    return rt_pool_init(&s->reads, sizeof(struct bkv_read), BKV_READS_MAX);
}

static void next_waiting(struct bkv *s)
{
    struct bkv_get_waiting *w;

    while (s->reads.free > 0 &&
           (w = list_pop_entry(&s->read_waiting, struct bkv_get_waiting, link)) != NULL)
        bkv_get_submit(s, container_of((void *)w, struct kv_req, driver));
}

static void finish(struct bkv_read *r, int rc)
{
    struct bkv *s = r->s;
    struct kv_req *kv = r->kv;

    rt_buf_put(r->buf);
    rt_pool_put(&s->reads, r);
    kv_complete(kv, rc);
    if (UNLIKELY(!list_empty(&s->read_waiting)))
        next_waiting(s);
}

int bkv_get_deliver(struct bkv *s, struct kv_req *kv, const struct bkv_record_out *rec)
{
    kv->value_len = rec->value_len;
    kv->version = rec->seq;
    if (kv->op == KV_STAT)
        return 0;
    return bkv_record_value(s->codec, rec, kv->off, kv->len, kv->iov, kv->iovcnt, s->scratch,
                            &kv->moved);
}

/* --- large values ----------------------------------------------------------------------------- */

/* A get of a large value whose record is in the cache, and current; its chunks are held. */
struct large_get {
    struct bkv_hold hold;
    uint64_t addr;
};

static int get_by_index(struct rt_task *t, struct bkv *s, struct kv_req *kv);

static int get_large(struct rt_task *t, struct bkv *s, struct kv_req *kv, uint64_t addr)
{
    struct bytes obj = bkv_cache_get(s->cache, addr);
    CLEANUP(free_p) uint8_t *copy = obj.len > 0 ? malloc(obj.len) : NULL;
    struct bkv_record_out rec;

    if (copy == NULL)
        return get_by_index(t, s, kv); /* others have pushed it out meanwhile */
    memcpy(copy, obj.ptr, obj.len);
    bkv_record_view(copy, &rec);
    return bkv_large_get(t, s, kv, &rec);
}

static int large_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = bkv_of(kv);
    struct large_get *w = (void *)kv->driver;
    int rc;

    rt_task_shield(t, true);
    rc = get_large(t, s, kv, w->addr);
    bkv_release(s, &w->hold);
    kv_complete(kv, rc);
    bkv_task_ended(s);
    return 0;
}

/* Nobody has waited since the table was asked, or no segment has become free since. */
static void start_large(struct bkv *s, struct kv_req *kv, uint64_t addr)
{
    struct large_get *w = (void *)kv->driver;
    int rc;

    static_assert(sizeof(*w) <= sizeof(kv->driver), "room in a request");
    w->addr = addr;
    bkv_hold(s, &w->hold);
    rc = bkv_task(s, "blobkv get", large_task, kv);
    if (rc < 0) {
        bkv_release(s, &w->hold);
        kv_complete(kv, rc);
    }
}

/* --- from the cache --------------------------------------------------------------------------- */

struct wanted {
    struct bkv *s;
    struct bytes key;
    uint64_t hash, addr;
    struct bkv_record_out rec;
};

/* Objects of the cache were checked when they came; here only whether it is the key's. */
static bool is_wanted(void *arg, uint64_t addr, struct bytes obj)
{
    struct wanted *w = arg;
    struct bytes found;

    if (obj.len < sizeof(struct bkv_record))
        return false;
    if (le32_get(((const struct bkv_record *)obj.ptr)->key_hash) != (uint32_t)w->hash)
        return false;
    bkv_record_view(obj.ptr, &w->rec);
    w->addr = addr;
    return bkv_record_key(w->s->codec, &w->rec, w->s->scratch, &found) == 0 &&
           bytes_eq(found, w->key);
}

/* True when it was answered, or will be. */
static bool from_cache(struct bkv *s, struct kv_req *kv, uint64_t hash,
                       const struct bkv_hot_hit *hit)
{
    struct wanted w = {.s = s, .key = kv->key, .hash = hash};
    struct bytes obj = bkv_cache_get_in(s->cache, hit->addr, 512, is_wanted, &w);

    if (obj.len == 0)
        return false;
    s->stats.get_cache++;
    if (w.rec.type == BKV_LARGE_VALUE && kv->op != KV_STAT)
        start_large(s, kv, w.addr);
    else
        kv_complete(kv, bkv_get_deliver(s, kv, &w.rec));
    return true;
}

/* --- by the index ----------------------------------------------------------------------------- */

static int get_by_index(struct rt_task *t, struct bkv *s, struct kv_req *kv)
{
    CLEANUP(rt_buf_put_p) struct rt_buf *buf = NULL;
    struct bkv_record_out rec;
    struct bkv_place place;
    uint64_t no;
    int rc;

    if (kv->op == KV_STAT) {
        rc = bkv_find(t, s, kv->key, &place);
        kv->value_len = place.value_len;
        kv->version = place.seq;
        return rc;
    }
    rc = bkv_find(t, s, kv->key, &place);
    no = s->checkpoint_no;
    if (rc == 0)
        rc = bkv_read_place(t, s, &place, kv->key, &buf, &rec);
    if (rc < 0)
        return rc;
    /* The key may have changed while it was read: what the table learns has to be true now. */
    if (no == s->checkpoint_no && !bkv_has_moved_on(s, kv->key, place.addr))
        bkv_hot_learn(s->hot, bkv_hash(s, kv->key), place.addr, place.rec_len);
    bkv_cache_put(s->cache, place.addr,
                  bytes_make(buf->data + place.addr % s->sector_bytes, place.rec_len));
    if (rec.type == BKV_LARGE_VALUE)
        return bkv_large_get(t, s, kv, &rec);
    return bkv_get_deliver(s, kv, &rec);
}

static int get_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = bkv_of(kv);
    struct bkv_hold hold;
    int rc;

    rt_task_shield(t, true);
    bkv_hold(s, &hold); /* a large value's chunks stay while its record is read */
    rc = get_by_index(t, s, kv);
    bkv_release(s, &hold);
    if (rc == -ENOENT)
        s->stats.get_absent++;
    else
        s->stats.get_index++;
    kv_complete(kv, rc);
    bkv_task_ended(s);
    return 0;
}

static void start_task(struct bkv *s, struct kv_req *kv)
{
    int rc = bkv_task(s, "blobkv get", get_task, kv);

    if (rc < 0)
        kv_complete(kv, rc);
}

/* The table led nowhere. */
static void go_by_index(struct bkv_read *r)
{
    struct bkv *s = r->s;
    struct kv_req *kv = r->kv;

    rt_buf_put(r->buf);
    rt_pool_put(&s->reads, r);
    start_task(s, kv);
    if (UNLIKELY(!list_empty(&s->read_waiting)))
        next_waiting(s);
}

/* --- one read --------------------------------------------------------------------------------- */

static void read_done(struct rt_req *req);

/* Reads `len` bytes from the record's sector on. */
static void submit_read(struct bkv_read *r, uint64_t addr, uint32_t len)
{
    struct bkv *s = r->s;
    uint64_t mask = s->sector_bytes - 1;
    uint64_t end = (addr + len + mask) & ~mask;
    uint64_t seg_end = ((uint64_t)bkv_seg_of(s, addr) + 1) << s->segment_shift;

    r->addr = addr & ~mask;
    r->skip = (uint32_t)(addr - r->addr);
    end = MIN(end, seg_end);
    len = (uint32_t)(end - r->addr);
    if (r->buf != NULL && r->buf->size_bytes < len) {
        rt_buf_put(r->buf);
        r->buf = NULL;
    }
    if (r->buf == NULL)
        r->buf = len <= RT_BUF_LARGE_BYTES ? rt_buf_get(len) : NULL;
    if (UNLIKELY(r->buf == NULL)) {
        go_by_index(r); /* there it waits in line */
        return;
    }
    r->gen = s->seg[bkv_seg_of(s, addr)].gen;
    r->iov = (struct iovec){.iov_base = r->buf->data, .iov_len = len};
    rt_req_init(&r->blob.req, read_done);
    r->blob.op = BLOB_READ;
    r->blob.flags = 0;
    r->blob.iov = &r->iov;
    r->blob.iovcnt = 1;
    r->blob.off_bytes = r->addr;
    r->blob.len_bytes = len;
    r->blob.blob = s->blob;
    r->blob.req.trace_id = r->kv->req.trace_id;
    s->stats.read_bytes += len;
    bkv_pin(s, addr);
    blob_submit(s->chan, &r->blob);
}

/* The next candidate of the table, if its address can be one. */
static void try_next(struct bkv_read *r)
{
    while (r->at < r->nhits) {
        const struct bkv_hot_hit *hit = &r->hit[r->at];

        if (LIKELY(bkv_seg_of(r->s, hit->addr) < r->s->nsegs)) {
            submit_read(r, hit->addr, hit->read_bytes);
            return;
        }
        r->at++;
    }
    go_by_index(r);
}

/* The record is of a large value. What it names is there if no checkpoint has come between. */
static void get_read_large(struct bkv_read *r, uint64_t addr)
{
    struct bkv *s = r->s;
    struct kv_req *kv = r->kv;

    if (r->checkpoint_no != s->checkpoint_no) {
        go_by_index(r);
        return;
    }
    s->stats.get_hot++;
    rt_buf_put(r->buf);
    rt_pool_put(&s->reads, r);
    start_large(s, kv, addr);
    if (UNLIKELY(!list_empty(&s->read_waiting)))
        next_waiting(s);
}

static void read_done(struct rt_req *req)
{
    struct bkv_read *r = container_of(req, struct bkv_read, blob.req);
    struct bkv *s = r->s;
    struct bkv_record_out rec;
    uint64_t at = r->addr + r->skip;
    uint32_t len = (uint32_t)r->iov.iov_len - r->skip, need = 0;
    int rc = req->rc;

    bkv_unpin(s, r->addr);
    if (UNLIKELY(rc < 0)) {
        finish(r, rc);
        return;
    }
    rc = bkv_record_search(s->codec, r->buf->data + r->skip, len, at, r->gen, 512, r->kv->key,
                           r->hash, s->scratch, &rec, &need);
    if (rc == -E2BIG && need > len && need <= BKV_RECORD_MAX + 512) {
        submit_read(r, at, need);
        return;
    }
    if (UNLIKELY(rc < 0)) {
        s->stats.hot_wrong++;
        r->at++;
        try_next(r);
        return;
    }
    at += (uint32_t)rc;
    bkv_cache_put(s->cache, at, bytes_make(r->buf->data + r->skip + (uint32_t)rc, rec.rec_len));
    if (UNLIKELY(rec.type == BKV_LARGE_VALUE)) {
        get_read_large(r, at);
        return;
    }
    s->stats.get_hot++;
    finish(r, bkv_get_deliver(s, r->kv, &rec));
}

/* --- submit ----------------------------------------------------------------------------------- */

void bkv_get_submit(struct bkv *s, struct kv_req *kv)
{
    struct bkv_hot_hit hit[HITS_MAX];
    struct bkv_place place;
    struct bkv_read *r;
    uint64_t hash = bkv_hash(s, kv->key);
    unsigned n = bkv_hot_find(s->hot, hash, hit, HITS_MAX);
    int rc;

    for (unsigned i = 0; i < n; i++) {
        if (from_cache(s, kv, hash, &hit[i]))
            return;
    }
    if (n == 0 || kv->op == KV_STAT) {
        rc = bkv_find_cached(s, kv->key, &place);
        if (rc == 0 && kv->op == KV_STAT) {
            kv->value_len = place.value_len;
            kv->version = place.seq;
        }
        if (rc == -ENOENT)
            s->stats.get_absent++;
        if ((rc == 0 && kv->op == KV_STAT) || (rc < 0 && rc != -EAGAIN)) {
            kv_complete(kv, rc);
            return;
        }
        if (rc == -EAGAIN || place.type == BKV_LARGE_VALUE) {
            start_task(s, kv);
            return;
        }
        hit[0] = (struct bkv_hot_hit){.addr = place.addr & ~511ull,
                                      .read_bytes = (uint32_t)(place.addr % 512) + place.rec_len};
        n = 1;
        bkv_hot_learn(s->hot, hash, place.addr, place.rec_len);
    }
    r = rt_pool_get(&s->reads);
    if (UNLIKELY(r == NULL)) {
        struct bkv_get_waiting *w = (void *)kv->driver;

        list_add_tail(&s->read_waiting, &w->link);
        return;
    }
    r->s = s;
    r->kv = kv;
    r->buf = NULL;
    r->hash = hash;
    r->checkpoint_no = s->checkpoint_no;
    r->nhits = n;
    r->at = 0;
    memcpy(r->hit, hit, n * sizeof(hit[0]));
    try_next(r);
}
