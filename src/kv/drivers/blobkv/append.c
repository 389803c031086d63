/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Append: a new version that is committed if the key is still what it was. Short values are read
 * and stored again; of long ones the new record names the old chunks and the new ones. What a
 * value ends with is written again when it is a short chunk, so that many small appends do not
 * make as many chunks; and all of it when there are too many nevertheless.
 *
 * One append to a key at a time, so that they do not overtake each other again and again; stores
 * of the same key make them start anew.
 */
#include "kv/drivers/blobkv/large.h"

#define SHORT_BYTES(s) ((s)->large->chunk_bytes / 4)
#define REWRITE_EXTENTS(s) ((s)->large->extents_max / 4 * 3)

/* The value that is there. */
struct base {
    bool there;
    struct bkv_place place;
    struct rt_buf *buf;
    struct bkv_record_out rec;
    uint8_t *copy; /* the value, when it is a short one */
    struct bkv_extents x;
};

struct appending {
    struct list link;
    struct bytes key;
};

/* Waits until nobody else appends to the key. */
static void turn_begin(struct rt_task *t, struct bkv *s, struct appending *me)
{
    const struct appending *a;
    bool again;

    do {
        again = false;
        list_for_each (a, &s->large->appends, struct appending, link)
            again = again || bytes_eq(a->key, me->key);
        if (again)
            (void)rt_cond_wait(t, &s->large->append_ended);
    } while (again);
    list_add_tail(&s->large->appends, &me->link);
}

static void turn_end(struct bkv *s, struct appending *me)
{
    list_del(&me->link);
    rt_cond_wake_all(&s->large->append_ended);
}

static int check_conditions(const struct bkv_append *a, const struct base *b)
{
    if ((a->flags & KV_F_MUST_EXIST) != 0 && !b->there)
        return -ENOENT;
    if ((a->flags & KV_F_MUST_NOT_EXIST) != 0 && b->there)
        return -EEXIST;
    if ((a->flags & KV_F_IF_VERSION) != 0 && (!b->there || b->place.seq != a->version))
        return -ESTALE;
    return 0;
}

/* Reads the record and what it holds. Segments are held; the extents may be those of a version that
 * is no more by now: then the commit will find out, and until then they are pinned. */
static int base_read(struct rt_task *t, struct bkv *s, const struct bkv_append *a, struct base *b)
{
    struct iovec iov = {NULL, BKV_INLINE_MAX};
    uint64_t moved;
    int rc = bkv_read_key(t, s, a->key, &b->place, &b->buf, &b->rec);

    if (rc == -ENOENT)
        return check_conditions(a, b);
    if (rc < 0)
        return rc;
    b->there = true;
    rc = check_conditions(a, b);
    if (rc < 0)
        return rc;
    if (b->rec.type == BKV_LARGE_VALUE)
        return bkv_extents_of(t, s, &b->rec, &b->x);
    b->copy = iov.iov_base = malloc(BKV_INLINE_MAX);
    if (b->copy == NULL)
        return -ENOMEM;
    return bkv_record_value(s->codec, &b->rec, 0, BKV_INLINE_MAX, &iov, 1, s->scratch, &moved);
}

static struct bkv_op op_for(struct bkv *s, const struct bkv_append *a, const struct base *b)
{
    return (struct bkv_op){
        .key = a->key,
        .hash = bkv_hash(s, a->key),
        .type = BKV_VALUE,
        .flags = b->there ? KV_F_IF_VERSION : KV_F_MUST_NOT_EXIST,
        .if_version = b->there ? b->place.seq : 0,
    };
}

/* `head`, then `len` bytes of the user's, as one list of pieces; NULL: no memory. */
static struct iovec *join(const void *head, size_t head_len, const struct bkv_append *a,
                          unsigned *out_n)
{
    struct iovec *iov = malloc((a->iovcnt + 1) * sizeof(*iov));

    if (iov == NULL)
        return NULL;
    iov[0] = (struct iovec){(void *)(uintptr_t)head, head_len};
    if (a->iovcnt > 0)
        memcpy(iov + 1, a->iov, a->iovcnt * sizeof(*iov));
    *out_n = a->iovcnt + 1;
    return iov;
}

static int append_short(struct rt_task *t, struct bkv *s, struct bkv_append *a,
                        const struct base *b)
{
    struct bkv_op op = op_for(s, a, b);
    uint64_t old_len = b->there ? b->rec.value_len : 0;
    unsigned n = 0;
    CLEANUP(free_p) struct iovec *iov = join(b->copy, old_len, a, &n);
    int rc;

    if (iov == NULL)
        return -ENOMEM;
    op.iov = iov;
    op.iovcnt = n;
    op.value_len = old_len + a->len;
    op.value_bytes = (uint32_t)op.value_len;
    rc = bkv_commit(t, s, &op);
    a->out_version = op.place.seq;
    return rc;
}

/* Writes [from, value_len) of the old value anew, chunk by chunk, and then the user's bytes. */
static int rewrite(struct rt_task *t, struct bkv *s, struct bkv_large_out *w, struct bkv_extents *x,
                   uint64_t from, const struct bkv_append *a)
{
    CLEANUP(free_p) struct iovec *iov = NULL;
    CLEANUP(free_p) uint8_t *buf = malloc(s->large->chunk_bytes);
    uint64_t moved = 0;
    unsigned n = 0;
    int rc = buf != NULL ? 0 : -ENOMEM;

    while (rc == 0 && x->value_len - from > 0) {
        struct iovec one = {buf, s->large->chunk_bytes};

        rc = bkv_large_read(t, s, x, from, one.iov_len, &one, 1, &moved);
        from += moved;
        one.iov_len = moved;
        if (rc < 0 || from == x->value_len)
            break;
        rc = bkv_large_write(t, w, &one, 1, moved);
        if (rc == 0)
            rc = bkv_large_settle(t, w); /* the buffer is used again */
        moved = 0;
    }
    if (rc == 0)
        iov = join(buf, moved, a, &n);
    if (rc == 0)
        rc = iov != NULL ? bkv_large_write(t, w, iov, n, moved + a->len) : -ENOMEM;
    if (rc == 0)
        rc = bkv_large_settle(t, w);
    return rc;
}

/* Many chunks, and short ones: it is worth its while to write all of it again. */
static bool is_scattered(const struct bkv *s, const struct bkv_extents *x, unsigned more)
{
    return x->n + more > REWRITE_EXTENTS(s) && x->value_len / x->n < SHORT_BYTES(s);
}

/* Bytes: after those of the old chunks that stay. */
static int append_bytes(struct rt_task *t, struct bkv *s, struct bkv_large_out *w,
                        const struct bkv_append *a, struct base *b)
{
    unsigned n = 0, keep = b->x.n;
    CLEANUP(free_p) struct iovec *iov = NULL;
    int rc;

    if (b->there && b->rec.type == BKV_LARGE_VALUE) {
        if (is_scattered(s, &b->x, 0))
            keep = 0;
        else if (le32_get(b->x.e[keep - 1].raw_len) < SHORT_BYTES(s))
            keep--;
        rc = bkv_large_share(w, b->x.e, keep);
        return rc < 0 ? rc : rewrite(t, s, w, &b->x, w->len, a);
    }
    iov = join(b->copy, b->there ? b->rec.value_len : 0, a, &n);
    return iov != NULL ? bkv_large_write(t, w, iov, n, iov[0].iov_len + a->len) : -ENOMEM;
}

/* Chunks that were written before: named again, after the old ones. Each try needs its own hold on
 * them, as `w` gives back what it names when it fails. */
static int append_chunks(struct rt_task *t, struct bkv *s, struct bkv_large_out *w,
                         const struct bkv_append *a, struct base *b)
{
    const struct bkv_extent *e = (const struct bkv_extent *)(a->chunks->rec + BKV_LARGE_HEAD_BYTES);
    struct bkv_append none = {.len = 0};
    int rc = 0;

    if (b->there && b->rec.type == BKV_LARGE_VALUE) {
        if (!is_scattered(s, &b->x, a->chunks->n))
            rc = bkv_large_share(w, b->x.e, b->x.n);
        else
            rc = rewrite(t, s, w, &b->x, 0, &none);
    } else if (b->there && b->rec.value_len > 0) {
        struct iovec iov = {b->copy, b->rec.value_len};

        rc = bkv_large_write(t, w, &iov, 1, iov.iov_len);
        if (rc == 0)
            rc = bkv_large_settle(t, w);
    }
    return rc < 0 ? rc : bkv_large_share(w, e, a->chunks->n);
}

static int append_long(struct rt_task *t, struct bkv *s, struct bkv_append *a, struct base *b)
{
    struct bkv_op op = op_for(s, a, b);
    struct bkv_large_out w;
    int rc;

    bkv_large_begin(&w, s, a->key);
    rc = a->chunks != NULL ? append_chunks(t, s, &w, a, b) : append_bytes(t, s, &w, a, b);
    if (rc < 0) {
        bkv_large_abort(t, &w);
        return rc;
    }
    rc = bkv_large_commit(t, &w, &op);
    a->out_version = op.place.seq;
    return rc;
}

/* One try; -EAGAIN: somebody else has changed the key meanwhile. */
static int append_once(struct rt_task *t, struct bkv *s, struct bkv_append *a)
{
    struct base b = {.there = false};
    struct bkv_hold hold;
    uint64_t old_len;
    int rc;

    bkv_hold(s, &hold);
    rc = base_read(t, s, a, &b);
    bkv_extents_pin(s, &b.x);
    bkv_release(s, &hold);
    old_len = b.there ? b.rec.value_len : 0;
    if (rc == 0 && a->len > bkv_large_val_max(s) - MIN(old_len, bkv_large_val_max(s)))
        rc = -EFBIG;
    else if (rc == 0 && a->chunks == NULL && old_len + a->len <= BKV_INLINE_MAX)
        rc = append_short(t, s, a, &b);
    else if (rc == 0)
        rc = append_long(t, s, a, &b);
    bkv_extents_unpin(s, &b.x);
    rt_buf_put_p(&b.buf);
    bkv_extents_free(&b.x);
    free(b.copy);
    if (rc == -ESTALE && (a->flags & KV_F_IF_VERSION) == 0)
        return -EAGAIN;
    return rc == -EEXIST && (a->flags & KV_F_MUST_NOT_EXIST) == 0 ? -EAGAIN : rc;
}

int bkv_append_run(struct rt_task *t, struct bkv *s, struct bkv_append *a)
{
    struct appending me = {.key = a->key};
    int rc = a->chunks != NULL ? bkv_large_settle(t, a->chunks) : 0;

    turn_begin(t, s, &me);
    if (rc == 0) {
        do {
            rc = append_once(t, s, a);
        } while (rc == -EAGAIN);
    }
    turn_end(s, &me);
    if (a->chunks != NULL)
        bkv_large_abort(t, a->chunks); /* its hold; the new record has its own */
    return rc;
}

static int append_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv *s = bkv_of(kv);
    struct bkv_append a = {
        .key = kv->key,
        .flags = kv->flags,
        .version = kv->version,
        .iov = kv->iov,
        .iovcnt = kv->iovcnt,
        .len = kv->len,
    };
    int rc;

    rt_task_shield(t, true);
    rc = bkv_append_run(t, s, &a);
    if (rc == 0)
        kv->version = a.out_version;
    kv_complete(kv, rc);
    bkv_task_ended(s);
    return 0;
}

void bkv_append_submit(struct bkv *s, struct kv_req *kv)
{
    int rc = bkv_task(s, "blobkv append", append_task, kv);

    if (rc < 0)
        kv_complete(kv, rc);
}
