/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem: a KV device in memory, with every capability: the reference for the others and the device
 * that speed is measured on. All requests run on one reactor and are over when submit returns, so
 * there are no locks and no states in between; only what was there before a change can outlive it
 * (versions, pinned by streams and snapshots).
 */
#include "kv/kv.h"

#include "kv/drivers/mem/index.h"

#define RELEASE_STEP 256u /* versions freed before others get their turn */

struct mem {
    struct mem_index ix;
    uint64_t val_max;
    char name[64];
    uint64_t size_bytes;
    uint32_t releasing; /* tasks that free what a closed snapshot has pinned */
    struct rt_cond released;
};

/* A stream, the driver's half. Written ones know their key. */
struct mem_stream {
    struct mem_value *v;
    uint64_t len;
    uint64_t version;
    uint32_t flags;
    struct art_key key;
};

static struct mem *mem_of(struct kv_chan *chan)
{
    return kv_driver_dev(kv_chan_dev(chan));
}

static struct mem_snap *snap_of(const struct kv_req *req)
{
    return (struct mem_snap *)req->snap;
}

/* Whether a store or delete may happen, given what is there. */
static int check(uint32_t flags, uint64_t version, const struct mem_value *live)
{
    if (LIKELY((flags & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST | KV_F_IF_VERSION)) == 0))
        return 0;
    if ((flags & KV_F_MUST_EXIST) != 0 && live == NULL)
        return -ENOENT;
    if ((flags & KV_F_MUST_NOT_EXIST) != 0 && live != NULL)
        return -EEXIST;
    if ((flags & KV_F_IF_VERSION) != 0 && (live == NULL || live->seq != version))
        return -ESTALE;
    return 0;
}

/* Makes `v` the value of `key`; takes the reference on success only. */
static int publish(struct mem *m, struct mem_entry *e, struct bytes key, struct mem_value *v)
{
    if (e == NULL)
        e = mem_find_or_add(&m->ix, key);
    if (e == NULL)
        return -ENOSPC;
    mem_publish(&m->ix, e, v, ++m->ix.seq);
    return 0;
}

/* Room for a new value of `len` bytes, after `*out_off` bytes of the present one when appending. */
static int value_for(struct mem *m, const struct mem_value *live, uint32_t flags, uint64_t len,
                     struct mem_value **out_v, uint64_t *out_off)
{
    *out_off = 0;
    if (UNLIKELY((flags & KV_F_APPEND) != 0) && live != NULL) {
        if (len > m->val_max - live->len)
            return -EFBIG;
        *out_off = live->len;
        *out_v = mem_value_append(&m->ix.slab, (struct mem_value *)live, len);
    } else {
        *out_v = mem_value_new(&m->ix.slab, len);
    }
    return *out_v != NULL ? 0 : -ENOSPC;
}

/* Whether the present value can be overwritten: nobody else sees it, and it is in one piece. */
static inline bool fits_in_place(const struct mem *m, const struct mem_value *live,
                                 const struct kv_req *req)
{
    return live->len == req->len && live->refs == 1 && !live->chunked &&
           (req->flags & KV_F_APPEND) == 0 && list_empty(&m->ix.snaps);
}

static int mem_store(struct mem *m, struct kv_req *req)
{
    struct mem_entry *e = mem_find(&m->ix, req->key);
    struct mem_value *live = mem_live(e);
    struct mem_value *v;
    uint64_t off;
    int rc;

    rc = check(req->flags, req->version, live);
    if (rc < 0)
        return rc;
    if (LIKELY(live != NULL && fits_in_place(m, live, req))) {
        if (LIKELY(req->len > 0))
            (void)mem_value_write(&m->ix.slab, live, 0, req->iov, req->iovcnt, req->len);
        req->version = live->seq = ++m->ix.seq;
        return 0;
    }
    rc = value_for(m, live, req->flags, req->len, &v, &off);
    if (rc < 0)
        return rc;
    if (LIKELY(req->len > 0)) {
        rc = mem_value_write(&m->ix.slab, v, off, req->iov, req->iovcnt, req->len);
        must(rc == 0);
    }
    rc = publish(m, e, req->key, v);
    if (rc < 0)
        mem_value_put(&m->ix.slab, v);
    else
        req->version = v->seq;
    return rc;
}

static void read_value(struct kv_req *req, struct mem_value *v)
{
    req->moved = req->off < v->len ? MIN(req->len, v->len - req->off) : 0;
    if (LIKELY(req->moved > 0))
        mem_value_read(v, req->off, req->iov, req->iovcnt, req->moved);
}

static int mem_retrieve(struct mem *m, struct kv_req *req)
{
    struct mem_value *v = mem_visible(mem_find(&m->ix, req->key), snap_of(req));

    if (v == NULL)
        return -ENOENT;
    req->value_len = v->len;
    req->version = v->seq;
    if (req->op == KV_RETRIEVE)
        read_value(req, v);
    return 0;
}

static int mem_delete(struct mem *m, struct kv_req *req)
{
    struct mem_entry *e = mem_find(&m->ix, req->key);
    struct mem_value *live = mem_live(e);
    int rc;

    if (live == NULL)
        return -ENOENT;
    rc = check(req->flags, req->version, live);
    if (rc < 0)
        return rc;
    mem_remove(&m->ix, e, ++m->ix.seq);
    mem_entry_tidy(&m->ix, e);
    return 0;
}

static int mem_list(struct mem *m, struct kv_req *req)
{
    bool after = (req->flags & KV_F_AFTER) != 0;
    struct bytes from = req->key;
    size_t used = 0;

    if (bytes_cmp(from, req->prefix) < 0) {
        from = req->prefix;
        after = false;
    }
    req->nkeys = 0;
    req->more = false;
    for (;;) {
        struct art_key *k = art_seek(&m->ix.order, from, after);

        if (k == NULL || !bytes_has_prefix(art_key_bytes(k), req->prefix))
            break;
        from = art_key_bytes(k);
        after = true;
        if (mem_visible(container_of(k, struct mem_entry, key), snap_of(req)) == NULL)
            continue;
        if (!kv_list_put(req->iov[0].iov_base, req->iov[0].iov_len, &used, from)) {
            req->more = true;
            break;
        }
        req->nkeys++;
    }
    req->moved = used;
    return 0;
}

/* --- streams ---------------------------------------------------------------------------------- */

static struct mem_stream *stream_of(const struct kv_req *req)
{
    return (struct mem_stream *)req->stream;
}

static int mem_store_open(struct mem *m, struct kv_req *req)
{
    struct mem_stream *st;
    int rc = check(req->flags, req->version, mem_live(mem_find(&m->ix, req->key)));

    if (rc < 0)
        return rc;
    st = slab_alloc(&m->ix.slab, sizeof(*st) + req->key.len);
    if (st == NULL)
        return -ENOSPC;
    *st = (struct mem_stream){.version = req->version, .flags = req->flags};
    st->v = mem_value_begin(&m->ix.slab, req->len);
    if (st->v == NULL) {
        slab_free(&m->ix.slab, st);
        return -ENOSPC;
    }
    st->key.len = (uint16_t)req->key.len;
    memcpy(st->key.bytes, req->key.ptr, req->key.len);
    req->stream = (struct kv_stream *)st;
    return 0;
}

static int mem_write(struct mem *m, struct kv_req *req)
{
    struct mem_stream *st = stream_of(req);
    int rc = mem_value_write(&m->ix.slab, st->v, req->off, req->iov, req->iovcnt, req->len);

    if (rc == 0)
        st->len = req->off + req->len;
    return rc;
}

/* The stream's value becomes the present one and the stream's bytes. */
static int join(struct mem *m, struct mem_stream *st, struct mem_value *live)
{
    struct mem_value *v;
    uint64_t off;
    int rc = value_for(m, live, KV_F_APPEND, st->len, &v, &off);

    if (rc < 0)
        return rc;
    rc = mem_value_copy(&m->ix.slab, v, off, st->v, st->len);
    must(rc == 0);
    mem_value_put(&m->ix.slab, st->v);
    st->v = v;
    return 0;
}

static int commit(struct mem *m, struct mem_stream *st)
{
    struct mem_entry *e = mem_find(&m->ix, art_key_bytes(&st->key));
    struct mem_value *live = mem_live(e);
    int rc;

    rc = check(st->flags, st->version, live);
    if (rc == 0 && (st->flags & KV_F_APPEND) != 0 && live != NULL)
        rc = join(m, st, live);
    else if (rc == 0 && st->v->len == MEM_LEN_UNKNOWN)
        rc = mem_value_finish(&m->ix.slab, &st->v, st->len);
    if (rc < 0)
        return rc;
    return publish(m, e, art_key_bytes(&st->key), st->v);
}

static int mem_commit(struct mem *m, struct kv_req *req)
{
    struct mem_stream *st = stream_of(req);
    int rc = req->op == KV_COMMIT ? commit(m, st) : 0;

    if (req->op == KV_COMMIT && rc == 0)
        req->version = st->v->seq;
    else
        mem_value_put(&m->ix.slab, st->v);
    slab_free(&m->ix.slab, st);
    return rc;
}

static int mem_retrieve_open(struct mem *m, struct kv_req *req)
{
    struct mem_stream *st;
    int rc = mem_retrieve(m, req);

    if (rc < 0)
        return rc;
    st = slab_alloc(&m->ix.slab, sizeof(*st));
    if (st == NULL)
        return -ENOMEM;
    st->v = mem_visible(mem_find(&m->ix, req->key), snap_of(req));
    mem_value_ref(st->v);
    req->stream = (struct kv_stream *)st;
    return 0;
}

static int mem_read_close(struct mem *m, struct kv_req *req)
{
    mem_value_put(&m->ix.slab, stream_of(req)->v);
    slab_free(&m->ix.slab, stream_of(req));
    return 0;
}

/* --- batches and snapshots -------------------------------------------------------------------- */

/* Makes the new versions, chained by `older`, and their entries: nothing of it is visible. */
static int batch_prepare(struct mem *m, const struct kv_req *req, struct mem_value **out_made)
{
    struct mem_value **tail = out_made;

    for (unsigned i = 0; i < req->nbatch; i++) {
        const struct kv_batch_item *item = &req->batch[i];
        struct iovec iov = {.iov_base = (void *)item->val.ptr, .iov_len = item->val.len};
        struct mem_value *v;

        if (item->is_delete)
            continue;
        v = mem_value_new(&m->ix.slab, item->val.len);
        if (v == NULL)
            return -ENOSPC;
        *tail = v;
        tail = &v->older;
        if (item->val.len > 0)
            (void)mem_value_write(&m->ix.slab, v, 0, &iov, 1, item->val.len);
        v->entry = mem_find_or_add(&m->ix, item->key);
        if (v->entry == NULL)
            return -ENOSPC;
    }
    return 0;
}

static void batch_undo(struct mem *m, const struct kv_req *req, struct mem_value *made)
{
    while (made != NULL) {
        struct mem_value *next = made->older;

        mem_value_put(&m->ix.slab, made);
        made = next;
    }
    for (unsigned i = 0; i < req->nbatch; i++)
        mem_entry_tidy(&m->ix, mem_find(&m->ix, req->batch[i].key));
}

static int mem_batch(struct mem *m, struct kv_req *req)
{
    struct mem_value *made = NULL;
    uint64_t seq = m->ix.seq + 1;
    int rc = batch_prepare(m, req, &made);

    if (rc < 0) {
        batch_undo(m, req, made);
        return rc;
    }
    m->ix.seq = seq;
    for (unsigned i = 0; i < req->nbatch; i++) {
        if (req->batch[i].is_delete) {
            struct mem_entry *e = mem_find(&m->ix, req->batch[i].key);

            if (mem_live(e) != NULL)
                mem_remove(&m->ix, e, seq);
        } else {
            struct mem_value *v = made;

            made = v->older;
            mem_publish(&m->ix, v->entry, v, seq);
        }
    }
    /* Only now: an entry without a value may still have been waiting for one. */
    for (unsigned i = 0; i < req->nbatch; i++)
        mem_entry_tidy(&m->ix, mem_find(&m->ix, req->batch[i].key));
    req->version = seq;
    return 0;
}

static int release_task(struct rt_task *t, void *arg)
{
    struct kv_req *req = arg;
    struct mem *m = mem_of(kv_home_chan(kv_chan_dev(req->chan)));

    while (!mem_snap_release(&m->ix, snap_of(req), RELEASE_STEP))
        (void)rt_yield(t);
    kv_complete(req, 0);
    if (--m->releasing == 0)
        rt_cond_wake_all(&m->released);
    return 0;
}

/* Closing frees what the snapshot has pinned, and ends when that is done. */
static void mem_snap_close(struct mem *m, struct kv_req *req)
{
    mem_snap_retire(&m->ix, snap_of(req));
    if (mem_snap_release(&m->ix, snap_of(req), RELEASE_STEP)) {
        kv_complete(req, 0);
        return;
    }
    if (rt_task_start("mem snapshot", release_task, req, NULL, NULL) == 0) {
        m->releasing++;
        return;
    }
    (void)mem_snap_release(&m->ix, snap_of(req), UINT32_MAX); /* no task to be had: all at once */
    kv_complete(req, 0);
}

static int mem_snap_open_req(struct mem *m, struct kv_req *req)
{
    struct mem_snap *snap = mem_snap_open(&m->ix);

    if (snap == NULL)
        return -ENOSPC;
    req->snap = (struct kv_snap *)snap;
    req->version = snap->seq;
    return 0;
}

/* --- the driver ------------------------------------------------------------------------------- */

static int mem_run(struct mem *m, struct kv_req *req)
{
    switch (req->op) {
    case KV_STORE:
        return mem_store(m, req);
    case KV_RETRIEVE:
    case KV_STAT:
        return mem_retrieve(m, req);
    case KV_DELETE:
        return mem_delete(m, req);
    case KV_LIST:
        return mem_list(m, req);
    case KV_STORE_OPEN:
        return mem_store_open(m, req);
    case KV_WRITE:
        return mem_write(m, req);
    case KV_COMMIT:
    case KV_ABORT:
        return mem_commit(m, req);
    case KV_RETRIEVE_OPEN:
        return mem_retrieve_open(m, req);
    case KV_READ:
        read_value(req, stream_of(req)->v);
        return 0;
    case KV_READ_CLOSE:
        return mem_read_close(m, req);
    case KV_BATCH:
        return mem_batch(m, req);
    case KV_SNAP_OPEN:
        return mem_snap_open_req(m, req);
    default:
        return -ENOTSUP;
    }
}

static void mem_submit(struct kv_chan *chan, struct kv_req *req)
{
    struct mem *m = mem_of(chan);

    if (UNLIKELY(req->op == KV_SNAP_CLOSE))
        mem_snap_close(m, req);
    else
        kv_complete(req, mem_run(m, req));
}

static int mem_open(struct rt_task *t, struct kv_dev *dev, const char *path,
                    const struct param_values *params, struct kv_info *info, struct err *why)
{
    struct mem *m = kv_driver_dev(dev);
    const char *name = param_given(params, "name") ? param_str(params, "name") : "";
    uint64_t secret[3];
    int rc;

    if (path[0] != '\0')
        return err_set(why, -EINVAL,
                       "mem: takes no path (\"%.64s\"), only ?size= and ?name=", path);
    if (strlen(name) >= sizeof(m->name))
        return err_set(why, -EINVAL, "mem: a name has at most %zu bytes", sizeof(m->name) - 1);
    memcpy(m->name, name, strlen(name) + 1);
    m->size_bytes = param_u64(params, "size");
    rt_random(secret, sizeof(secret));
    rc = mem_index_init(&m->ix, m->size_bytes, secret);
    if (rc == -EINVAL)
        return err_set(why, rc, "mem: size has to be from 1M to 64T");
    if (rc < 0)
        return err_set(why, rc, "mem: cannot reserve %llu bytes of address space",
                       (unsigned long long)m->size_bytes);
    m->val_max = MIN(m->size_bytes, MEM_VALUE_MAX);
    *info = (struct kv_info){
        .key_max = KV_KEY_MAX,
        .val_max = m->val_max,
        .caps = KV_CAP_RANGE | KV_CAP_VERSION | KV_CAP_APPEND | KV_CAP_UNKNOWN_LEN |
                KV_CAP_ORDERED_LIST | KV_CAP_BATCH | KV_CAP_SNAPSHOT,
        .size_bytes = m->size_bytes,
        .optimal_bytes = 4096,
    };
    return 0;
}

/* One name is one device; without a name every mem: of one size is the same. */
static int mem_same(struct kv_dev *dev, const char *path, const struct param_values *params,
                    struct err *why)
{
    const struct mem *m = kv_driver_dev(dev);
    const char *name = param_given(params, "name") ? param_str(params, "name") : "";
    bool same_size = param_u64(params, "size") == m->size_bytes;

    if (strcmp(name, m->name) != 0)
        return 0;
    if (name[0] == '\0' || same_size || !param_given(params, "size"))
        return name[0] != '\0' || same_size;
    return err_set(why, -EINVAL, "mem: \"%s\" is open with a size of %llu bytes", m->name,
                   (unsigned long long)m->size_bytes);
}

static void mem_close(struct rt_task *t, struct kv_dev *dev)
{
    struct mem *m = kv_driver_dev(dev);

    while (m->releasing > 0)
        (void)rt_cond_wait(t, &m->released);
    mem_index_fini(&m->ix);
}

static void mem_abandon(struct kv_dev *dev)
{
    mem_index_fini(&((struct mem *)kv_driver_dev(dev))->ix);
}

static int mem_usage(struct rt_task *t, struct kv_dev *dev, uint64_t *out_used, uint64_t *out_keys)
{
    struct mem *m = kv_driver_dev(dev);

    *out_used = slab_used(&m->ix.slab);
    *out_keys = m->ix.nkeys;
    return 0;
}

static const struct param mem_params[] = {
    {"size", PARAM_SIZE, "1G", false, "memory for values, keys and index together"},
    {"name", PARAM_STR, NULL, false, "tells several mem devices of one process apart"},
    {0},
};

const struct kv_driver kv_mem_driver = {
    .name = "mem",
    .help = "values in memory, gone when the process ends",
    .params = mem_params,
    .dev_bytes = sizeof(struct mem),
    .home = true,
    .open = mem_open,
    .same = mem_same,
    .close = mem_close,
    .submit = mem_submit,
    .usage = mem_usage,
    .abandon = mem_abandon,
};
