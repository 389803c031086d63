/* SPDX-License-Identifier: Apache-2.0 */
/* KV devices, synchronous: each call is one task on the library's reactor. */
#include "capi/capi.h"

#include <stdio.h>
#include <stdlib.h>

#define GET_FIRST_BYTES 16384u /* of a value whose length is not known */

static_assert(KVASIR_CAP_RANGE == KV_CAP_RANGE, "capabilities are the same bits");
static_assert(KVASIR_CAP_SNAPSHOT == KV_CAP_SNAPSHOT, "capabilities are the same bits");
static_assert(KVASIR_CAP_VOLATILE_CACHE == KV_CAP_VOLATILE_CACHE, "capabilities are the same bits");
static_assert(KVASIR_MUST_EXIST == KV_F_MUST_EXIST, "flags are the same bits");
static_assert(KVASIR_MUST_NOT_EXIST == KV_F_MUST_NOT_EXIST, "flags are the same bits");
static_assert(KVASIR_IF_VERSION == KV_F_IF_VERSION, "flags are the same bits");
static_assert(KVASIR_APPEND == KV_F_APPEND, "flags are the same bits");
static_assert(KVASIR_LEN_UNKNOWN == KV_LEN_UNKNOWN, "the same value");

/* --- open and close --------------------------------------------------------------------------- */

int capi_kv_open(struct rt_task *t, const char *uri, struct kvasir_kv *kv, struct err *why)
{
    int rc = kv_open(t, uri, &kv->dev, why);

    if (rc < 0)
        return rc;
    rc = kv_chan_get(t, kv->dev, &kv->chan);
    if (rc < 0) {
        kv_close(t, kv->dev);
        return err_set(why, rc, "%.200s: %s", uri, err_str(rc));
    }
    return 0;
}

void capi_kv_close(struct rt_task *t, struct kvasir_kv *kv)
{
    struct kv_req req = {.op = KV_SNAP_CLOSE, .snap = kv->snap};

    if (kv->snap != NULL) {
        rt_req_init_task(&req.req, t);
        kv_submit(kv->chan, &req);
        rt_wait(t, &req.req);
    }
    kv_chan_put(t, kv->chan);
    kv_close(t, kv->dev);
}

struct open_call {
    const char *uri;
    struct kvasir_kv *kv;
    struct err why;
};

static int open_task(struct rt_task *t, void *arg)
{
    struct open_call *c = arg;

    return capi_kv_open(t, c->uri, c->kv, &c->why);
}

/* Percent-encodes all but letters and digits. False: no room. */
static bool put_encoded(char *out, size_t max, size_t *used, const char *text)
{
    for (; *text != '\0'; text++) {
        bool plain = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
                     (*text >= '0' && *text <= '9') || *text == '_';
        int n = snprintf(out + *used, max - *used, plain ? "%c" : "%%%02X", (unsigned char)*text);

        if (n < 0 || (size_t)n >= max - *used)
            return false;
        *used += (size_t)n;
    }
    return true;
}

/* Inserts name=value pairs before the fragment, if there is one. */
static int uri_with(const char *uri, const struct kvasir_option *options, size_t noptions,
                    char out[URI_MAX])
{
    size_t used = strcspn(uri, "#");
    const char *fragment = uri + used;
    bool first = memchr(uri, '?', used) == NULL;

    if (strlen(uri) >= URI_MAX)
        return -ENAMETOOLONG;
    memcpy(out, uri, used);
    for (size_t i = 0; i < noptions; i++) {
        if (used + 2 >= URI_MAX)
            return -ENAMETOOLONG;
        out[used++] = first ? '?' : '&';
        first = false;
        if (!put_encoded(out, URI_MAX, &used, options[i].name) || used + 1 >= URI_MAX)
            return -ENAMETOOLONG;
        out[used++] = '=';
        if (!put_encoded(out, URI_MAX, &used, options[i].value))
            return -ENAMETOOLONG;
    }
    if (used + strlen(fragment) >= URI_MAX)
        return -ENAMETOOLONG;
    memcpy(out + used, fragment, strlen(fragment) + 1);
    return 0;
}

int kvasir_open_kv_with(const char *uri, const struct kvasir_option *options, size_t noptions,
                        struct kvasir_kv **out_kv)
{
    char text[URI_MAX];
    int rc = uri_with(uri, options, noptions, text);

    return rc < 0 ? capi_fail(rc, "the URI with its options is too long")
                  : kvasir_open_kv(text, out_kv);
}

int kvasir_open_kv(const char *uri, struct kvasir_kv **out_kv)
{
    struct open_call c = {.uri = uri};
    int rc = capi_enter();

    if (rc < 0)
        return rc;
    c.kv = calloc(1, sizeof(*c.kv));
    rc = c.kv == NULL ? -ENOMEM : capi_call(open_task, &c);
    if (rc < 0) {
        free(c.kv);
        capi_leave();
        return capi_fail(rc, c.why.text);
    }
    *out_kv = c.kv;
    return 0;
}

static int close_task(struct rt_task *t, void *arg)
{
    capi_kv_close(t, arg);
    return 0;
}

int kvasir_close_kv(struct kvasir_kv *kv)
{
    int rc;

    if (kv == NULL)
        return 0;
    if (kv->loop != NULL)
        return capi_fail(-EINVAL, "the device was opened for an event loop");
    rc = capi_call(close_task, kv);
    if (rc < 0)
        return capi_fail(rc, NULL);
    free(kv);
    capi_leave();
    return 0;
}

void kvasir_kv_info(const struct kvasir_kv *kv, struct kvasir_kv_info *out_info)
{
    const struct kv_info *i = kv_info(kv->dev);

    *out_info = (struct kvasir_kv_info){
        .key_max = i->key_max,
        .val_max = i->val_max,
        .caps = i->caps,
        .size_bytes = i->size_bytes,
        .nkeys_max = i->nkeys_max,
        .optimal_bytes = i->optimal_bytes,
    };
    memcpy(out_info->uuid, i->uuid, sizeof(out_info->uuid));
}

/* --- one request ------------------------------------------------------------------------------ */

static bool reads_snap(uint8_t op)
{
    return op == KV_RETRIEVE || op == KV_RETRIEVE_OPEN || op == KV_STAT || op == KV_LIST;
}

static int request_task(struct rt_task *t, void *arg)
{
    struct capi_request *c = arg;

    rt_req_init_task(&c->req.req, t);
    if (c->kv->snap != NULL && reads_snap(c->req.op))
        c->req.snap = c->kv->snap;
    kv_submit(c->kv->chan, &c->req);
    return rt_wait(t, &c->req.req);
}

static bool changes(uint8_t op)
{
    return op == KV_STORE || op == KV_DELETE || op == KV_STORE_OPEN || op == KV_BATCH;
}

int capi_run(struct capi_request *c)
{
    int rc;

    if (c->kv->loop != NULL)
        return capi_fail(-EINVAL, "the device was opened for an event loop");
    if (c->kv->snap != NULL && changes(c->req.op))
        return capi_fail(-EROFS, "this is a snapshot: it does not change");
    rc = capi_call(request_task, c);
    return rc < 0 ? capi_fail(rc, NULL) : 0;
}

int kvasir_kv_put_version(struct kvasir_kv *kv, const void *key, size_t key_len, const void *val,
                          size_t val_len, unsigned flags, uint64_t version, uint64_t *out_version)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)val, .iov_len = val_len};
    struct capi_request c = {.kv = kv,
                             .req = {.op = KV_STORE,
                                     .flags = flags,
                                     .key = bytes_make(key, key_len),
                                     .iov = &iov,
                                     .iovcnt = 1,
                                     .len = val_len,
                                     .version = version}};
    int rc;

    if ((flags & ~CAPI_STORE_FLAGS) != 0)
        return capi_fail(-EINVAL, NULL);
    if (out_version == NULL)
        c.req.flags |= KV_F_NO_VERSION;
    rc = capi_run(&c);
    if (rc == 0 && out_version != NULL)
        *out_version = c.req.version;
    return rc;
}

int kvasir_kv_put(struct kvasir_kv *kv, const void *key, size_t key_len, const void *val,
                  size_t val_len, unsigned flags)
{
    return kvasir_kv_put_version(kv, key, key_len, val, val_len, flags, 0, NULL);
}

int kvasir_kv_get_range(struct kvasir_kv *kv, const void *key, size_t key_len, uint64_t off,
                        void *buf, size_t len, size_t *out_moved, uint64_t *out_len,
                        uint64_t *out_version)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    struct capi_request c = {.kv = kv,
                             .req = {.op = KV_RETRIEVE,
                                     .flags = out_version == NULL ? KV_F_NO_VERSION : 0,
                                     .key = bytes_make(key, key_len),
                                     .off = off,
                                     .iov = &iov,
                                     .iovcnt = 1,
                                     .len = len}};
    int rc = capi_run(&c);

    if (rc < 0)
        return rc;
    if (out_moved != NULL)
        *out_moved = c.req.moved;
    if (out_len != NULL)
        *out_len = c.req.value_len;
    if (out_version != NULL)
        *out_version = c.req.version;
    return 0;
}

int kvasir_kv_get(struct kvasir_kv *kv, const void *key, size_t key_len, void *buf, size_t max,
                  uint64_t *out_len)
{
    return kvasir_kv_get_range(kv, key, key_len, 0, buf, max, NULL, out_len, NULL);
}

int kvasir_kv_stat(struct kvasir_kv *kv, const void *key, size_t key_len, uint64_t *out_len,
                   uint64_t *out_version)
{
    struct capi_request c = {.kv = kv,
                             .req = {.op = KV_STAT,
                                     .flags = out_version == NULL ? KV_F_NO_VERSION : 0,
                                     .key = bytes_make(key, key_len)}};
    int rc = capi_run(&c);

    if (rc == 0 && out_len != NULL)
        *out_len = c.req.value_len;
    if (rc == 0 && out_version != NULL)
        *out_version = c.req.version;
    return rc;
}

int kvasir_kv_append(struct kvasir_kv *kv, const void *key, size_t key_len, const void *val,
                     size_t val_len)
{
    return kvasir_kv_put(kv, key, key_len, val, val_len, KVASIR_APPEND);
}

int kvasir_kv_exists(struct kvasir_kv *kv, const void *key, size_t key_len)
{
    int rc = kvasir_kv_stat(kv, key, key_len, NULL, NULL);

    return rc == -ENOENT ? 0 : rc < 0 ? rc : 1;
}

/* The length first: it may be another one when the value is read, and then it is tried again. */
int kvasir_kv_get_alloc(struct kvasir_kv *kv, const void *key, size_t key_len, size_t max,
                        void **out_val, size_t *out_len)
{
    CLEANUP(free_p) uint8_t *val = NULL;
    uint64_t len, room = GET_FIRST_BYTES;
    int rc;

    for (;;) {
        room = MIN(room, max);
        free(val);
        val = malloc(room + 1);
        if (val == NULL)
            return capi_fail(-ENOMEM, NULL);
        rc = kvasir_kv_get(kv, key, key_len, val, room, &len);
        if (rc < 0)
            return rc;
        if (len <= room)
            break;
        if (len > max)
            return capi_fail(-EFBIG, "the value is longer than what was asked for");
        room = len;
    }
    val[len] = 0;
    *out_len = len;
    *out_val = take_ptr(&val);
    return 0;
}

int kvasir_kv_delete(struct kvasir_kv *kv, const void *key, size_t key_len, unsigned flags,
                     uint64_t version)
{
    struct capi_request c = {
        .kv = kv,
        .req = {
            .op = KV_DELETE, .flags = flags, .key = bytes_make(key, key_len), .version = version}};

    if ((flags & ~KVASIR_IF_VERSION) != 0)
        return capi_fail(-EINVAL, NULL);
    return capi_run(&c);
}

int kvasir_kv_flush(struct kvasir_kv *kv)
{
    struct capi_request c = {.kv = kv, .req = {.op = KV_FLUSH}};

    return capi_run(&c);
}

int kvasir_kv_batch(struct kvasir_kv *kv, const struct kvasir_change *changes, size_t nchanges)
{
    CLEANUP(free_p) struct kv_batch_item *items = calloc(MAX(nchanges, 1u), sizeof(*items));
    struct capi_request c = {.kv = kv,
                             .req = {.op = KV_BATCH, .batch = items, .nbatch = (unsigned)nchanges}};

    if (items == NULL)
        return capi_fail(-ENOMEM, NULL);
    if (nchanges > UINT32_MAX)
        return capi_fail(-EFBIG, NULL);
    for (size_t i = 0; i < nchanges; i++) {
        bool is_delete = (changes[i].flags & KVASIR_BATCH_DELETE) != 0;

        if ((changes[i].flags & ~KVASIR_BATCH_DELETE) != 0)
            return capi_fail(-EINVAL, NULL);
        items[i] = (struct kv_batch_item){
            .key = bytes_make(changes[i].key, changes[i].key_len),
            .val = bytes_make(changes[i].val, is_delete ? 0 : changes[i].val_len),
            .is_delete = is_delete,
        };
    }
    return capi_run(&c);
}

/* --- snapshots -------------------------------------------------------------------------------- */

struct snapshot_call {
    struct kvasir_kv *of, *snap;
};

static int snapshot_task(struct rt_task *t, void *arg)
{
    struct snapshot_call *c = arg;
    struct kv_req req = {.op = KV_SNAP_OPEN};
    int rc = kv_chan_get(t, c->of->dev, &c->snap->chan);

    if (rc < 0)
        return rc;
    rt_req_init_task(&req.req, t);
    kv_submit(c->snap->chan, &req);
    rc = rt_wait(t, &req.req);
    if (rc < 0) {
        kv_chan_put(t, c->snap->chan);
        return rc;
    }
    c->snap->dev = kv_ref(c->of->dev);
    c->snap->snap = req.snap;
    return 0;
}

int kvasir_kv_snapshot(struct kvasir_kv *kv, struct kvasir_kv **out_snap)
{
    struct snapshot_call c = {.of = kv};
    int rc;

    if (kv->loop != NULL || kv->snap != NULL)
        return capi_fail(-EINVAL, kv->loop != NULL ? "the device was opened for an event loop"
                                                   : "this is a snapshot already");
    rc = capi_enter();
    if (rc < 0)
        return rc;
    c.snap = calloc(1, sizeof(*c.snap));
    rc = c.snap == NULL ? -ENOMEM : capi_call(snapshot_task, &c);
    if (rc < 0) {
        free(c.snap);
        capi_leave();
        return capi_fail(rc, NULL);
    }
    *out_snap = c.snap;
    return 0;
}

/* --- statistics ------------------------------------------------------------------------------- */

struct stats_call {
    struct kvasir_kv *kv;
    struct kv_stats *stats;
    uint64_t used_bytes, nkeys;
};

static int stats_task(struct rt_task *t, void *arg)
{
    struct stats_call *c = arg;
    int rc = kv_stats(t, c->kv->dev, c->stats);

    return rc < 0 ? rc : kv_usage(t, c->kv->dev, &c->used_bytes, &c->nkeys);
}

/* Latencies are those of the first kind, which has nearly all of them. */
static struct kvasir_op_stats stats_of(const struct kv_stats *s, enum kv_op op, enum kv_op also)
{
    const struct kv_op_stats *a = &s->op[op], *b = &s->op[also];
    const struct hist *h = a->ops > 0 ? &a->latency_ns : &b->latency_ns;
    bool two = op != also;

    return (struct kvasir_op_stats){
        .ops = a->ops + (two ? b->ops : 0),
        .errors = a->errors + (two ? b->errors : 0),
        .bytes = a->bytes + (two ? b->bytes : 0),
        .p50_ns = hist_percentile(h, 0.5),
        .p99_ns = hist_percentile(h, 0.99),
        .p999_ns = hist_percentile(h, 0.999),
    };
}

int kvasir_kv_stats(struct kvasir_kv *kv, struct kvasir_kv_stats *out_stats)
{
    CLEANUP(free_p) struct kv_stats *s = calloc(1, sizeof(*s));
    struct stats_call c = {.kv = kv, .stats = s};
    int rc;

    if (s == NULL)
        return capi_fail(-ENOMEM, NULL);
    if (kv->loop != NULL)
        return capi_fail(-EINVAL, "the device was opened for an event loop");
    rc = capi_call(stats_task, &c);
    if (rc < 0)
        return capi_fail(rc, NULL);
    *out_stats = (struct kvasir_kv_stats){
        .used_bytes = c.used_bytes,
        .nkeys = c.nkeys,
        .put = stats_of(s, KV_STORE, KV_COMMIT),
        .get = stats_of(s, KV_RETRIEVE, KV_READ),
        .stat = stats_of(s, KV_STAT, KV_STAT),
        .del = stats_of(s, KV_DELETE, KV_DELETE),
        .list = stats_of(s, KV_LIST, KV_LIST),
        .flush = stats_of(s, KV_FLUSH, KV_FLUSH),
    };
    return 0;
}
