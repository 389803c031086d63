/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams. A written one collects up to 32 KiB in memory of its own: what ends before is a record
 * like any other. What goes on is copied into chunk buffers, each of which is written as soon as
 * it is full. A stream that has a part of a chunk and is not writing gives it up when buffers are
 * short: its next chunk is a shorter one then. A read one pins the segments of its version.
 */
#include "kv/drivers/blobkv/large.h"
#include "kv/drivers/blobkv/snap.h"

#define SMALL_FIRST_BYTES 4096u

struct bkv_stream_io {
    struct list link;   /* bkv_large.streams */
    struct list idle;   /* bkv_large.idle, while it has a part and nobody works on it; .ending */
    struct kv_req *end; /* what ends it */
    struct bkv *s;
    bool large;
    /* Written. */
    uint32_t flags;
    uint64_t version;
    uint8_t *small; /* the beginning, while it is not large; read: a short value */
    uint32_t small_len, small_max;
    struct bkv_large_out out;
    struct bkv_chunk_buf *part;
    uint32_t part_len, part_max;
    int rc;
    struct iovec small_iov;
    struct rt_cond squeezed; /* somebody else has been writing our part */
    bool squeezing;
    /* Read. */
    struct bkv_extents x;
    uint32_t key_len;
    uint8_t key[];
};

static struct bkv_stream_io *stream_of(const struct kv_req *kv)
{
    return (struct bkv_stream_io *)kv->stream;
}

struct bkv *bkv_stream_store(const struct kv_req *kv)
{
    return stream_of(kv)->s;
}

static struct bkv_stream_io *stream_new(struct bkv *s, struct bytes key)
{
    struct bkv_stream_io *st = calloc(1, sizeof(*st) + key.len);

    if (st == NULL)
        return NULL;
    st->s = s;
    st->key_len = (uint32_t)key.len;
    memcpy(st->key, key.ptr, key.len);
    list_init(&st->idle);
    list_add_tail(&s->large->streams, &st->link);
    return st;
}

static void stream_free(struct bkv_stream_io *st)
{
    list_del(&st->link);
    free(st->small);
    bkv_extents_free(&st->x);
    bkv_large_done(&st->out);
    free(st);
}

void bkv_streams_free(struct bkv *s)
{
    struct list *streams = &s->large->streams;

    while (!list_empty(streams))
        stream_free(list_first(streams, struct bkv_stream_io, link));
}

static struct bytes key_of(const struct bkv_stream_io *st)
{
    return bytes_make(st->key, st->key_len);
}

/* Nobody may take the part from now on. */
static void busy(struct rt_task *t, struct bkv_stream_io *st)
{
    while (st->squeezing)
        (void)rt_cond_wait(t, &st->squeezed);
    list_del(&st->idle);
    list_init(&st->idle);
}

static void idle(struct bkv_stream_io *st)
{
    if (st->part == NULL)
        return;
    list_add_tail(&st->s->large->idle, &st->idle);
    rt_cond_wake_one(&st->s->large->writes.freed); /* who waits for a buffer may squeeze it */
}

/* Writes the part that there is. */
static int part_write(struct rt_task *t, struct bkv_stream_io *st)
{
    struct bkv_chunk_buf *b = take_ptr(&st->part);
    uint32_t len = st->part_len;
    int rc;

    st->part_len = 0;
    if (b == NULL)
        return 0;
    rc = bkv_large_write_buf(t, &st->out, b, len);
    if (st->rc == 0)
        st->rc = rc;
    return rc;
}

bool bkv_stream_squeeze(struct rt_task *t, struct bkv *s)
{
    struct bkv_stream_io *st;

    if (list_empty(&s->large->idle))
        return false;
    st = list_first(&s->large->idle, struct bkv_stream_io, idle);
    list_del(&st->idle);
    list_init(&st->idle);
    st->squeezing = true;
    (void)part_write(t, st);
    st->squeezing = false;
    rt_cond_wake_all(&st->squeezed);
    return true;
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Room for `len` more bytes in the beginning; false: it becomes large. */
static bool small_grow(struct bkv_stream_io *st, uint64_t len, int *out_rc)
{
    uint32_t max = MAX(st->small_max, SMALL_FIRST_BYTES);
    uint8_t *more;

    if (st->large || len > BKV_INLINE_MAX - st->small_len)
        return false;
    while (max < st->small_len + len)
        max *= 2;
    if (max == st->small_max)
        return true;
    more = realloc(st->small, max);
    if (more == NULL) {
        *out_rc = -ENOMEM;
        return true;
    }
    st->small = more;
    st->small_max = max;
    return true;
}

static int part_begin(struct rt_task *t, struct bkv_stream_io *st)
{
    st->part = bkv_chunk_buf_get(t, st->s);
    st->part_len = 0;
    st->part_max = bkv_large_next(&st->out);
    return 0;
}

/* What was small goes into the first chunk. */
static void become_large(struct rt_task *t, struct bkv_stream_io *st)
{
    bkv_large_begin(&st->out, st->s, key_of(st));
    st->large = true;
    part_begin(t, st);
    if (st->small_len > 0)
        memcpy(st->part->data, st->small, st->small_len);
    st->part_len = st->small_len;
    free(take_ptr(&st->small));
    st->small_len = st->small_max = 0;
}

static int write_large(struct rt_task *t, struct bkv_stream_io *st, const struct kv_req *kv)
{
    int rc = st->rc;

    for (uint64_t at = 0; rc == 0 && at < kv->len;) {
        uint32_t n;

        if (st->part == NULL)
            part_begin(t, st);
        n = (uint32_t)MIN(st->part_max - st->part_len, kv->len - at);
        (void)iov_copy_out(kv->iov, kv->iovcnt, at, st->part->data + st->part_len, n);
        st->part_len += n;
        at += n;
        if (st->part_len == st->part_max)
            rc = part_write(t, st);
    }
    return rc;
}

static int write_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = bkv_of(kv);
    struct bkv_stream_io *st = stream_of(kv);
    int rc;

    rt_task_shield(t, true);
    busy(t, st);
    if (!st->large)
        become_large(t, st);
    rc = write_large(t, st, kv);
    idle(st);
    kv_complete(kv, rc);
    bkv_task_ended(s);
    return 0;
}

static void start(struct bkv *s, struct kv_req *kv, const char *name, rt_task_fn fn)
{
    int rc = bkv_task(s, name, fn, kv);

    if (rc < 0)
        kv_complete(kv, rc);
}

/* What only has to be copied is copied here. */
static void write_submit(struct bkv *s, struct kv_req *kv)
{
    struct bkv_stream_io *st = stream_of(kv);
    int rc = st->rc;

    if (rc < 0) {
        kv_complete(kv, rc);
        return;
    }
    if (small_grow(st, kv->len, &rc)) {
        if (rc == 0) {
            (void)iov_copy_out(kv->iov, kv->iovcnt, 0, st->small + st->small_len, kv->len);
            st->small_len += (uint32_t)kv->len;
        }
        kv_complete(kv, rc);
        return;
    }
    if (st->part != NULL && !st->squeezing && kv->len < st->part_max - st->part_len) {
        (void)iov_copy_out(kv->iov, kv->iovcnt, 0, st->part->data + st->part_len, kv->len);
        st->part_len += (uint32_t)kv->len;
        kv_complete(kv, 0);
        return;
    }
    start(s, kv, "blobkv write", write_task);
}

static int commit_append(struct rt_task *t, struct bkv_stream_io *st, struct kv_req *kv)
{
    struct iovec iov = {st->small, st->small_len};
    struct bkv_append a = {
        .key = key_of(st),
        .flags = st->flags,
        .version = st->version,
        .iov = &iov,
        .iovcnt = 1,
        .len = st->large ? st->out.len : st->small_len,
        .chunks = st->large ? &st->out : NULL,
    };
    int rc = bkv_append_run(t, st->s, &a);

    if (rc == 0)
        kv->version = a.out_version;
    return rc;
}

static struct bkv_op op_of(const struct bkv_stream_io *st)
{
    return (struct bkv_op){
        .key = key_of(st),
        .hash = bkv_hash(st->s, key_of(st)),
        .type = BKV_VALUE,
        .flags = (uint8_t)(st->flags & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST | KV_F_IF_VERSION)),
        .if_version = st->version,
    };
}

static int commit(struct rt_task *t, struct bkv_stream_io *st, struct kv_req *kv)
{
    struct bkv_op op = op_of(st);
    int rc = part_write(t, st);

    if (rc < 0 || st->rc < 0) {
        bkv_large_abort(t, &st->out);
        return st->rc;
    }
    if ((st->flags & KV_F_APPEND) != 0)
        return commit_append(t, st, kv);
    rc = bkv_large_commit(t, &st->out, &op);
    if (rc == 0)
        kv->version = op.place.seq;
    return rc;
}

static int commit_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = bkv_of(kv);
    struct bkv_stream_io *st = stream_of(kv);
    int rc;

    rt_task_shield(t, true);
    busy(t, st);
    rc = commit(t, st, kv);
    stream_free(st);
    kv_complete(kv, rc);
    bkv_task_ended(s);
    return 0;
}

static void small_done(struct bkv_op *op, int rc)
{
    struct kv_req *kv = container_of((void *)op, struct kv_req, driver);

    if (rc == 0)
        kv->version = op->place.seq;
    stream_free(stream_of(kv));
    kv_complete(kv, rc);
}

/* A short value needs no task. */
static void commit_small(struct bkv_stream_io *st, struct kv_req *kv)
{
    struct bkv_op *op = (struct bkv_op *)kv->driver;

    st->small_iov = (struct iovec){st->small, st->small_len};
    *op = op_of(st);
    op->iov = &st->small_iov;
    op->iovcnt = 1;
    op->value_bytes = st->small_len;
    op->value_len = st->small_len;
    op->done = small_done;
    bkv_commit_submit(st->s, op);
}

static int abort_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = bkv_of(kv);
    struct bkv_stream_io *st = stream_of(kv);

    rt_task_shield(t, true);
    busy(t, st);
    if (st->part != NULL)
        bkv_chunk_buf_put(take_ptr(&st->part));
    bkv_large_abort(t, &st->out);
    stream_free(st);
    kv_complete(kv, 0);
    bkv_task_ended(s);
    return 0;
}

static void end(struct bkv *s, struct kv_req *kv)
{
    struct bkv_stream_io *st = stream_of(kv);
    int rc = kv->op == KV_COMMIT ? bkv_task(s, "blobkv commit", commit_task, kv)
                                 : bkv_task(s, "blobkv abort", abort_task, kv);

    if (LIKELY(rc == 0))
        return;
    /* Nothing may keep a stream from ending, not even that there are too many tasks. */
    list_del(&st->idle);
    list_add_tail(&s->large->ending, &st->idle);
    st->end = kv;
    rt_timer_start(&s->large->end_again, rt_now() + NS_PER_MS);
}

void bkv_streams_end(struct rt_timer *timer)
{
    struct bkv_large *l = container_of(timer, struct bkv_large, end_again);
    struct list again;

    list_init(&again);
    while (!list_empty(&l->ending)) {
        struct bkv_stream_io *st = list_first(&l->ending, struct bkv_stream_io, idle);

        list_del(&st->idle);
        list_add_tail(&again, &st->idle);
    }
    while (!list_empty(&again)) {
        struct bkv_stream_io *st = list_first(&again, struct bkv_stream_io, idle);

        list_del(&st->idle);
        list_init(&st->idle);
        end(st->s, st->end);
    }
}

static void end_submit(struct bkv *s, struct kv_req *kv)
{
    struct bkv_stream_io *st = stream_of(kv);

    if (!st->large && kv->op == KV_ABORT) {
        stream_free(st);
        kv_complete(kv, 0);
    } else if (!st->large && st->rc == 0 && (st->flags & KV_F_APPEND) == 0) {
        commit_small(st, kv);
    } else {
        end(s, kv);
    }
}

/* A look at the conditions before anything is written; they count at the commit. */
static int check_conditions(struct rt_task *t, struct bkv *s, const struct kv_req *kv)
{
    struct bkv_place place;
    int rc = bkv_find(t, s, kv->key, &place);

    if (rc < 0 && rc != -ENOENT)
        return rc;
    if ((kv->flags & KV_F_MUST_EXIST) != 0 && rc == -ENOENT)
        return -ENOENT;
    if ((kv->flags & KV_F_MUST_NOT_EXIST) != 0 && rc == 0)
        return -EEXIST;
    if ((kv->flags & KV_F_IF_VERSION) != 0 && (rc == -ENOENT || place.seq != kv->version))
        return -ESTALE;
    return 0;
}

static int open_writing(struct bkv *s, struct kv_req *kv)
{
    struct bkv_stream_io *st = s->poison == 0 ? stream_new(s, kv->key) : NULL;

    if (st == NULL)
        return s->poison != 0 ? -EIO : -ENOMEM;
    st->flags = kv->flags;
    st->version = kv->version;
    kv->stream = (struct kv_stream *)st;
    return 0;
}

static int store_open_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = bkv_of(kv);
    int rc;

    rt_task_shield(t, true);
    rc = check_conditions(t, s, kv);
    kv_complete(kv, rc < 0 ? rc : open_writing(s, kv));
    bkv_task_ended(s);
    return 0;
}

/* --- reading ---------------------------------------------------------------------------------- */

static int open_reading(struct rt_task *t, struct kv_req *kv, struct bkv_stream_io *st)
{
    CLEANUP(rt_buf_put_p) struct rt_buf *buf = NULL;
    struct bkv *s = st->s;
    struct bkv_record_out rec;
    struct bkv_place place;
    struct iovec iov;
    uint64_t moved;
    int rc = bkv_snap_read_key(t, s, bkv_snap_of(kv), kv->key, &place, &buf, &rec);

    if (rc < 0)
        return rc;
    kv->value_len = rec.value_len;
    kv->version = rec.seq;
    if (rec.type == BKV_LARGE_VALUE) {
        rc = bkv_extents_of(t, s, &rec, &st->x);
        if (rc < 0)
            return rc;
        bkv_extents_pin(s, &st->x);
        st->large = true;
        return 0;
    }
    st->small = malloc(MAX(rec.value_len, 1u));
    if (st->small == NULL)
        return -ENOMEM;
    iov = (struct iovec){st->small, rec.value_len};
    st->small_len = (uint32_t)rec.value_len;
    return bkv_record_value(s->codec, &rec, 0, rec.value_len, &iov, 1, s->scratch, &moved);
}

static int retrieve_open_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = bkv_of(kv);
    struct bkv_stream_io *st = stream_new(s, kv->key);
    struct bkv_snap *snap = bkv_snap_of(kv);
    struct bkv_hold hold;
    int rc = st == NULL ? -ENOMEM : snap != NULL ? bkv_snap_enter(snap) : 0;

    rt_task_shield(t, true);
    if (rc == 0) {
        bkv_hold(s, &hold);
        rc = open_reading(t, kv, st);
        bkv_release(s, &hold);
        if (snap != NULL)
            bkv_snap_leave(snap);
    }
    if (rc < 0 && st != NULL)
        stream_free(st);
    if (rc == 0)
        kv->stream = (struct kv_stream *)st;
    kv_complete(kv, rc);
    bkv_task_ended(s);
    return 0;
}

static int read_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = bkv_of(kv);
    int rc;

    rt_task_shield(t, true);
    rc = bkv_large_read(t, s, &stream_of(kv)->x, kv->off, kv->len, kv->iov, kv->iovcnt, &kv->moved);
    kv_complete(kv, rc);
    bkv_task_ended(s);
    return 0;
}

static void read_submit(struct bkv *s, struct kv_req *kv)
{
    struct bkv_stream_io *st = stream_of(kv);

    if (st->large) {
        start(s, kv, "blobkv read", read_task);
        return;
    }
    kv->moved = kv->off < st->small_len ? MIN(kv->len, st->small_len - kv->off) : 0;
    if (kv->moved > 0)
        (void)iov_copy_in(kv->iov, kv->iovcnt, 0, st->small + kv->off, kv->moved);
    kv_complete(kv, 0);
}

static void read_close(struct bkv *s, struct kv_req *kv)
{
    struct bkv_stream_io *st = stream_of(kv);

    if (st->large)
        bkv_extents_unpin(s, &st->x);
    stream_free(st);
    kv_complete(kv, 0);
}

void bkv_stream_submit(struct bkv *s, struct kv_req *kv)
{
    uint32_t conditions = KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST | KV_F_IF_VERSION;

    switch (kv->op) {
    case KV_STORE_OPEN:
        if ((kv->flags & conditions) != 0)
            start(s, kv, "blobkv open", store_open_task);
        else
            kv_complete(kv, open_writing(s, kv));
        break;
    case KV_WRITE:
        write_submit(s, kv);
        break;
    case KV_COMMIT:
    case KV_ABORT:
        end_submit(s, kv);
        break;
    case KV_RETRIEVE_OPEN:
        start(s, kv, "blobkv open", retrieve_open_task);
        break;
    case KV_READ:
        read_submit(s, kv);
        break;
    default:
        read_close(s, kv);
        break;
    }
}
