/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a LARGE record names: its extents, or, when they are too many for one record, lists of them.
 * A list is a chunk like any other, of the same key, checked and sealed like one, in the same
 * stream; its data are extents. Lists are written when the value is complete, before the flush that
 * makes its chunks durable, and never changed: who changes a value writes new ones.
 *
 * In memory the extents of a value are one array in order, and the lists follow them: everything
 * in it counts, is held, pinned and dropped alike.
 */
#include "kv/drivers/blobkv/large.h"

/* --- reading ---------------------------------------------------------------------------------- */

static bool extent_is_right(const struct bkv *s, const struct bkv_extent *e)
{
    uint64_t addr = le64_get(e->addr);
    uint32_t in_seg = (uint32_t)(addr & (s->segment_bytes - 1));
    uint32_t data_len = le32_get(e->data_len), head_len = le32_get(e->head_len);
    uint32_t raw_len = le32_get(e->raw_len);

    return addr >> s->segment_shift > 0 && addr >> s->segment_shift < s->nsegs &&
           addr % s->sector_bytes == 0 && head_len > 0 && head_len % s->sector_bytes == 0 &&
           head_len <= BKV_CHUNK_HEAD_MAX && data_len > 0 && data_len <= raw_len &&
           raw_len <= BKV_CHUNK_MAX &&
           (uint64_t)in_seg + bkv_extent_bytes(s, e) <= s->segment_bytes;
}

bool bkv_stored_has_lists(struct bytes stored)
{
    return stored.len >= BKV_LISTS_HEAD_BYTES && le64_at(stored.ptr + BKV_LARGE_HEAD_BYTES) == 0;
}

/* How many lists a record has whose payload is `stored`; -EBADMSG. */
static int lists_in(struct bytes stored)
{
    size_t len = stored.len - BKV_LISTS_HEAD_BYTES;

    if (len == 0 || len % sizeof(struct bkv_list_ref) != 0)
        return -EBADMSG;
    return (int)(len / sizeof(struct bkv_list_ref));
}

static const struct bkv_list_ref *list_at(struct bytes stored, unsigned i)
{
    return (const struct bkv_list_ref *)(stored.ptr + BKV_LISTS_HEAD_BYTES) + i;
}

int bkv_list_check(struct bkv *s, const struct bkv_extent *e, uint8_t *chunk)
{
    struct bkv_chunk_head *head = (struct bkv_chunk_head *)chunk;
    uint64_t addr = le64_get(e->addr);
    uint32_t head_len = le32_get(e->head_len), len = le32_get(e->data_len), need;
    struct iovec iov = {chunk + head_len, len};
    uint32_t gen = bkv_gen_of(s, addr);
    int rc = bkv_chunk_head_check(chunk, head_len, addr, gen, &need);

    if (rc < 0 || le32_get(head->crc) != le32_get(e->head_crc) || le32_get(head->data_len) != len ||
        (head->flags & (BKV_F_ZSTD | BKV_F_LZ4)) != 0)
        return -EBADMSG;
    rc = bkv_chunk_units_check(head, addr, gen, head_len, 0, bkv_units(len), &iov, 1);
    return rc < 0 ? rc : bkv_chunk_units_open(s->codec, head, 0, bkv_units(len), chunk + head_len);
}

/* The extents of one list, whose place was checked, to `out`. */
static int list_read(struct rt_task *t, struct bkv *s, const struct bkv_list_ref *l,
                     struct bkv_extent *out)
{
    uint32_t len = bkv_extent_bytes(s, &l->e);
    CLEANUP(free_p) uint8_t *buf = aligned_alloc(4096, round_up_u64(len, 4096));
    int rc = buf != NULL ? bkv_read_sectors(t, s, le64_get(l->e.addr), len, buf) : -ENOMEM;

    if (rc == 0)
        rc = bkv_list_check(s, &l->e, buf);
    if (rc == 0)
        memcpy(out, buf + le32_get(l->e.head_len), le32_get(l->e.data_len));
    return rc;
}

static uint64_t sum_of(const struct bkv_extent *e, unsigned n)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < n; i++)
        sum += le32_get(e[i].raw_len);
    return sum;
}

/* Places that can be, and lengths that add up. */
static int extents_check(const struct bkv *s, const struct bkv_extents *x)
{
    for (unsigned i = 0; i < x->n; i++)
        if (!extent_is_right(s, &x->e[i]))
            return -EBADMSG;
    return sum_of(x->e, x->n) == x->value_len ? 0 : -EBADMSG;
}

static int take_memory(struct bkv_extents *x)
{
    x->e = malloc(((size_t)x->n + x->nlists) * sizeof(*x->e));
    return x->e != NULL ? 0 : -ENOMEM;
}

static int take_extents(const struct bkv *s, struct bytes stored, struct bkv_extents *x)
{
    size_t len = stored.len - BKV_LARGE_HEAD_BYTES;
    int rc;

    if (stored.len <= BKV_LARGE_HEAD_BYTES || len % sizeof(struct bkv_extent) != 0)
        return -EBADMSG;
    x->n = (unsigned)(len / sizeof(struct bkv_extent));
    rc = take_memory(x);
    if (rc < 0)
        return rc;
    memcpy(x->e, stored.ptr + BKV_LARGE_HEAD_BYTES, len);
    return extents_check(s, x);
}

static int take_lists(struct rt_task *t, struct bkv *s, struct bytes stored, struct bkv_extents *x)
{
    const struct bkv_extent *mark = (const void *)(stored.ptr + BKV_LARGE_HEAD_BYTES);
    int rc = lists_in(stored);
    uint64_t n = 0, at = 0;

    if (rc < 0)
        return rc;
    x->nlists = (unsigned)rc;
    for (unsigned i = 0; i < x->nlists; i++) {
        const struct bkv_list_ref *l = list_at(stored, i);

        if (!extent_is_right(s, &l->e) ||
            le32_get(l->e.data_len) % sizeof(struct bkv_extent) != 0 ||
            le32_get(l->e.data_len) != le32_get(l->e.raw_len))
            return -EBADMSG;
        n += le32_get(l->e.data_len) / sizeof(struct bkv_extent);
    }
    if (n != le32_get(mark->raw_len))
        return -EBADMSG;
    x->n = (unsigned)n;
    rc = take_memory(x);
    for (unsigned i = 0; rc == 0 && i < x->nlists; i++) {
        const struct bkv_list_ref *l = list_at(stored, i);
        unsigned have = le32_get(l->e.data_len) / sizeof(struct bkv_extent);

        x->e[x->n + i] = l->e;
        rc = list_read(t, s, l, &x->e[at]);
        if (rc == 0 && sum_of(&x->e[at], have) != le64_get(l->value_len))
            rc = -EBADMSG;
        at += have;
    }
    return rc < 0 ? rc : extents_check(s, x);
}

/* What the record holds: in its buffer, or decrypted into memory of its own. */
static int payload_of(struct bkv *s, const struct bkv_record_out *rec, uint8_t **out_copy,
                      struct bytes *out)
{
    struct iovec iov = {.iov_len = BKV_INLINE_MAX};
    uint64_t moved = 0;
    int rc;

    *out = rec->stored;
    if ((rec->flags & BKV_F_SEALED) == 0)
        return 0;
    *out_copy = iov.iov_base = malloc(BKV_INLINE_MAX + BKV_SCRATCH_BYTES);
    if (*out_copy == NULL)
        return -ENOMEM;
    rc = bkv_record_value(s->codec, rec, 0, BKV_INLINE_MAX, &iov, 1, *out_copy + BKV_INLINE_MAX,
                          &moved);
    *out = bytes_make(*out_copy, moved);
    return rc;
}

int bkv_extents_of(struct rt_task *t, struct bkv *s, const struct bkv_record_out *rec,
                   struct bkv_extents *out)
{
    CLEANUP(free_p) uint8_t *copy = NULL;
    struct bytes stored;
    int rc = payload_of(s, rec, &copy, &stored);

    *out = (struct bkv_extents){.value_len = rec->value_len};
    if (rc == 0 && stored.len < BKV_LARGE_HEAD_BYTES)
        rc = -EBADMSG;
    if (rc < 0)
        return rc;
    out->value_id = le64_at(stored.ptr);
    rc =
        bkv_stored_has_lists(stored) ? take_lists(t, s, stored, out) : take_extents(s, stored, out);
    if (rc < 0)
        bkv_extents_free(out);
    return rc;
}

void bkv_extents_free(struct bkv_extents *x)
{
    free(x->e);
    *x = (struct bkv_extents){0};
}

void bkv_extents_pin(struct bkv *s, const struct bkv_extents *x)
{
    for (unsigned i = 0; i < x->n + x->nlists; i++)
        bkv_pin(s, le64_get(x->e[i].addr));
}

void bkv_extents_unpin(struct bkv *s, const struct bkv_extents *x)
{
    for (unsigned i = 0; i < x->n + x->nlists; i++)
        bkv_unpin(s, le64_get(x->e[i].addr));
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Extents [first, first + n) as a chunk in memory that will lie at [addr, gen). */
static int list_make(struct bkv_large_out *w, uint8_t *buf, uint32_t head_len, unsigned first,
                     unsigned n, uint64_t addr, uint32_t gen, uint32_t *out_crc)
{
    struct bkv *s = w->s;
    struct bkv_chunk_head *head = (struct bkv_chunk_head *)buf;
    uint32_t len = n * (uint32_t)sizeof(struct bkv_extent);
    uint8_t flags = bkv_codec_seals(s->codec) ? BKV_F_SEALED : 0;
    struct iovec iov = {buf + head_len, len};
    int rc;

    memcpy(buf + head_len, bkv_large_extent(w, first), len);
    bkv_chunk_begin(head, flags, len, (uint32_t)w->key.len, w->value_id, 0);
    rc = bkv_chunk_seal(s->codec, head, buf + head_len);
    if (rc < 0)
        return rc;
    bkv_chunk_sum(head, addr, gen, head_len, &iov, 1);
    return bkv_chunk_finish(s->codec, head, w->key, addr, gen, head_len, out_crc);
}

/* Writes extents [first, first + n) as a list, which is held then, and says where it is in *out.
 * Its memory is its own: who waits for a buffer of the pools may have to wait for the collector. */
static int list_write(struct rt_task *t, struct bkv_large_out *w, unsigned first, unsigned n,
                      struct bkv_list_ref *out)
{
    struct bkv *s = w->s;
    uint32_t len = n * (uint32_t)sizeof(struct bkv_extent);
    uint32_t head_len =
        bkv_chunk_head_len(bkv_codec_seals(s->codec), (uint32_t)w->key.len, len, BKV_PAGE_BYTES);
    uint32_t total = head_len + (uint32_t)round_up_u64(len, s->sector_bytes), gen, crc;
    CLEANUP(free_p) uint8_t *buf = aligned_alloc(4096, round_up_u64(total, 4096));
    uint64_t addr;
    int rc = buf != NULL ? bkv_large_place(t, s, w->need, total, &addr, &gen) : -ENOMEM;

    if (rc < 0)
        return rc;
    memset(buf + head_len + len, 0, total - head_len - len);
    rc = list_make(w, buf, head_len, first, n, addr, gen, &crc);
    if (rc == 0)
        rc = bkv_write(t, s, buf, addr, total);
    if (rc < 0) {
        bkv_large_drop(s, addr, total);
        return rc;
    }
    *out = (struct bkv_list_ref){
        .e = {.addr = le64_make(addr),
              .data_len = le32_make(len),
              .head_len = le32_make(head_len),
              .raw_len = le32_make(len),
              .head_crc = le32_make(crc)},
        .value_len = le64_make(sum_of(bkv_large_extent(w, first), n)),
    };
    return 0;
}

/* Before the first record with lists the super slot says that there are such. */
static int announce(struct rt_task *t, struct bkv *s)
{
    while ((le32_get(s->super.incompat) & BKV_INCOMPAT_LISTS) == 0) {
        int rc;

        s->incompat |= BKV_INCOMPAT_LISTS;
        s->dirty = true;
        rc = bkv_checkpoint(t, s, NULL, NULL);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int bkv_lists_write(struct rt_task *t, struct bkv_large_out *w, struct iovec *out)
{
    struct bkv *s = w->s;
    unsigned per = s->large->list_extents, count = (w->n + per - 1) / per;
    struct bkv_extent mark = {.raw_len = le32_make(w->n)};
    uint8_t *payload;
    int rc;

    if (count > BKV_LIST_REFS_MAX)
        return -EFBIG;
    rc = bkv_large_reserve(w, count);
    if (rc == 0)
        rc = announce(t, s);
    if (rc < 0)
        return rc;
    out->iov_len = BKV_LISTS_HEAD_BYTES + count * sizeof(struct bkv_list_ref);
    payload = out->iov_base = w->payload = malloc(out->iov_len);
    if (payload == NULL)
        return -ENOMEM;
    le64_put(payload, w->value_id);
    memcpy(payload + BKV_LARGE_HEAD_BYTES, &mark, sizeof(mark));
    for (unsigned i = 0, first = 0; i < count; i++, first += per) {
        struct bkv_list_ref *l = (struct bkv_list_ref *)(payload + BKV_LISTS_HEAD_BYTES) + i;

        rc = list_write(t, w, first, MIN(per, w->n - first), l);
        if (rc < 0)
            return rc;
        *bkv_large_extent(w, w->n + w->nlists++) = l->e;
    }
    return 0;
}
