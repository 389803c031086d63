/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/mem/value.h"

#include "base/must.h"

#include <assert.h>
#include <errno.h>

#define FEW 8u /* full chunks whose addresses are kept in the head */
#define TAILS 2u

struct mem_chunks {
    uint32_t nfull;
    uint32_t tail_len[TAILS];
    uint8_t *tail[TAILS];
    union {
        uint8_t *few[FEW];
        uint8_t ***root; /* MEM_PAGE_SLOTS pages of MEM_PAGE_SLOTS addresses */
    };
};

static_assert(sizeof(struct mem_value) == 64, "a 4 KiB value with its head fits a size class");

static struct mem_chunks *chunks_of(struct mem_value *v)
{
    return (struct mem_chunks *)v->data;
}

/* How the bytes after the full chunks are kept: one piece, or half a chunk and one piece. */
static void tail_layout(struct mem_chunks *c, uint32_t rest)
{
    if (rest > MEM_CHUNK_BYTES / 2 && rest <= MEM_CHUNK_BYTES / 4 * 3) {
        c->tail_len[0] = MEM_CHUNK_BYTES / 2;
        c->tail_len[1] = rest - MEM_CHUNK_BYTES / 2;
    } else {
        c->tail_len[0] = rest;
    }
}

struct mem_value *mem_value_begin(struct slab *s, uint64_t len)
{
    bool chunked = len > MEM_INLINE_MAX;
    struct mem_value *v =
        slab_alloc(s, sizeof(*v) + (chunked ? sizeof(struct mem_chunks) : (size_t)len));

    if (v == NULL)
        return NULL;
    *v = (struct mem_value){.len = len, .refs = 1, .chunked = chunked, .end_seq = MEM_SEQ_LIVE};
    if (!chunked)
        return v;
    *chunks_of(v) = (struct mem_chunks){0};
    if (len == MEM_LEN_UNKNOWN) {
        chunks_of(v)->nfull = MEM_FULL_MAX;
    } else {
        must(len <= MEM_VALUE_MAX);
        chunks_of(v)->nfull = (uint32_t)(len / MEM_CHUNK_BYTES);
        tail_layout(chunks_of(v), (uint32_t)(len % MEM_CHUNK_BYTES));
    }
    return v;
}

/* A zeroed page of addresses. */
static void *page_new(struct slab *s)
{
    void *page = slab_alloc(s, MEM_PAGE_SLOTS * sizeof(void *));

    if (page != NULL)
        memset(page, 0, MEM_PAGE_SLOTS * sizeof(void *));
    return page;
}

/* Where the address of full chunk `i` is kept. NULL: there is no page for it and none to be had. */
static uint8_t **full_slot(struct slab *s, struct mem_chunks *c, uint32_t i, bool make)
{
    uint8_t ***leaf;

    if (c->nfull <= FEW)
        return &c->few[i];
    if (c->root == NULL && make)
        c->root = page_new(s);
    if (c->root == NULL)
        return NULL;
    leaf = &c->root[i / MEM_PAGE_SLOTS];
    if (*leaf == NULL && make)
        *leaf = page_new(s);
    return *leaf == NULL ? NULL : &(*leaf)[i % MEM_PAGE_SLOTS];
}

/* The piece that holds byte `off`: its address there and how many bytes follow in it. */
static uint8_t *piece(struct slab *s, struct mem_value *v, uint64_t off, size_t *out_avail,
                      bool make)
{
    struct mem_chunks *c = chunks_of(v);
    uint64_t i = off / MEM_CHUNK_BYTES;
    uint32_t in = (uint32_t)(off % MEM_CHUNK_BYTES);
    uint32_t len = MEM_CHUNK_BYTES;
    uint8_t **slot;

    if (!v->chunked) {
        *out_avail = (size_t)(v->len - off);
        return v->data + off;
    }
    if (i < c->nfull) {
        slot = full_slot(s, c, (uint32_t)i, make);
    } else {
        unsigned n = in >= c->tail_len[0];

        in -= n * c->tail_len[0];
        slot = &c->tail[n];
        len = c->tail_len[n];
    }
    if (slot != NULL && *slot == NULL && make)
        *slot = slab_alloc(s, len);
    if (slot == NULL || *slot == NULL)
        return NULL;
    must(in < len);
    *out_avail = len - in;
    return *slot + in;
}

/* Makes every piece of [from, to). */
static int make_room(struct slab *s, struct mem_value *v, uint64_t from, uint64_t to)
{
    size_t avail;

    for (uint64_t off = from; off < to; off += avail) {
        if (piece(s, v, off, &avail, true) == NULL)
            return -ENOSPC;
    }
    return 0;
}

struct mem_value *mem_value_new(struct slab *s, uint64_t len)
{
    struct mem_value *v = mem_value_begin(s, len);

    if (v == NULL || LIKELY(!v->chunked))
        return v;
    if (make_room(s, v, 0, len) < 0) {
        mem_value_put(s, v);
        return NULL;
    }
    return v;
}

int mem_value_write(struct slab *s, struct mem_value *v, uint64_t off, const struct iovec *iov,
                    unsigned iovcnt, uint64_t len)
{
    size_t avail;

    if (LIKELY(iovcnt == 1 && !v->chunked)) {
        memcpy(v->data + off, iov->iov_base, (size_t)len);
        return 0;
    }
    for (uint64_t done = 0; done < len; done += avail) {
        uint8_t *p = piece(s, v, off + done, &avail, true);

        if (p == NULL)
            return -ENOSPC;
        avail = (size_t)MIN(avail, len - done);
        must(iov_copy_out(iov, iovcnt, (size_t)done, p, avail) == avail);
    }
    return 0;
}

void mem_value_read(struct mem_value *v, uint64_t off, const struct iovec *iov, unsigned iovcnt,
                    uint64_t len)
{
    size_t avail;

    if (LIKELY(iovcnt == 1 && !v->chunked)) {
        memcpy(iov->iov_base, v->data + off, (size_t)len);
        return;
    }
    for (uint64_t done = 0; done < len; done += avail) {
        const uint8_t *p = piece(NULL, v, off + done, &avail, false);

        must(p != NULL);
        avail = (size_t)MIN(avail, len - done);
        must(iov_copy_in(iov, iovcnt, (size_t)done, p, avail) == avail);
    }
}

int mem_value_copy(struct slab *s, struct mem_value *dst, uint64_t off, struct mem_value *src,
                   uint64_t len)
{
    size_t avail;

    for (uint64_t done = 0; done < len; done += avail) {
        struct iovec iov = {.iov_base = piece(NULL, src, done, &avail, false)};
        int rc;

        must(iov.iov_base != NULL);
        avail = (size_t)MIN(avail, len - done);
        iov.iov_len = avail;
        rc = mem_value_write(s, dst, off + done, &iov, 1, avail);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Gives the full chunks of `old` a second owner, `v`. */
static int share_full(struct slab *s, struct mem_value *v, struct mem_value *old)
{
    struct mem_chunks *from = chunks_of(old), *to = chunks_of(v);

    for (uint32_t i = 0; i < from->nfull; i++) {
        uint8_t **slot = full_slot(s, to, i, true);

        if (slot == NULL)
            return -ENOSPC;
        *slot = *full_slot(s, from, i, false);
        slab_share(s, *slot);
    }
    return 0;
}

static int append_fill(struct slab *s, struct mem_value *v, struct mem_value *old)
{
    uint64_t shared = 0;
    size_t avail;
    int rc;

    if (old->chunked) {
        rc = share_full(s, v, old);
        if (rc < 0)
            return rc;
        shared = (uint64_t)chunks_of(old)->nfull * MEM_CHUNK_BYTES;
    }
    rc = make_room(s, v, shared, v->len);
    if (rc < 0)
        return rc;
    for (uint64_t off = shared; off < old->len; off += avail) {
        struct iovec iov = {.iov_base = piece(NULL, old, off, &avail, false), .iov_len = avail};

        rc = mem_value_write(s, v, off, &iov, 1, avail);
        must(rc == 0);
    }
    return 0;
}

struct mem_value *mem_value_append(struct slab *s, struct mem_value *old, uint64_t more_len)
{
    struct mem_value *v = mem_value_begin(s, old->len + more_len);

    if (v == NULL)
        return NULL;
    if (append_fill(s, v, old) < 0) {
        mem_value_put(s, v);
        return NULL;
    }
    return v;
}

int mem_value_finish(struct slab *s, struct mem_value **pv, uint64_t len)
{
    struct mem_value *v = *pv;
    struct mem_value *fit = mem_value_begin(s, len);
    uint64_t whole = len - len % MEM_CHUNK_BYTES;
    size_t avail;

    must(v->len == MEM_LEN_UNKNOWN);
    if (fit == NULL)
        return -ENOSPC;
    for (uint64_t off = 0; off < len; off += avail) {
        struct iovec iov = {.iov_base = piece(NULL, v, off, &avail, false)};
        uint8_t **slot;

        if (off < whole) {
            slot = full_slot(s, chunks_of(fit), (uint32_t)(off / MEM_CHUNK_BYTES), true);
            if (slot != NULL) {
                *slot = iov.iov_base;
                slab_share(s, *slot);
                continue;
            }
        } else {
            avail = iov.iov_len = (size_t)(len - off);
            if (mem_value_write(s, fit, off, &iov, 1, avail) == 0)
                continue;
        }
        mem_value_put(s, fit);
        return -ENOSPC;
    }
    mem_value_put(s, v);
    *pv = fit;
    return 0;
}

static void chunks_free(struct slab *s, struct mem_chunks *c)
{
    for (unsigned i = 0; i < TAILS; i++)
        slab_free(s, c->tail[i]);
    for (unsigned i = 0; c->nfull <= FEW && i < FEW; i++)
        slab_free(s, c->few[i]);
    if (c->nfull <= FEW || c->root == NULL)
        return;
    for (unsigned i = 0; i < MEM_PAGE_SLOTS; i++) {
        uint8_t **leaf = c->root[i];

        for (unsigned j = 0; leaf != NULL && j < MEM_PAGE_SLOTS; j++)
            slab_free(s, leaf[j]);
        slab_free(s, leaf);
    }
    slab_free(s, c->root);
}

void mem_value_put(struct slab *s, struct mem_value *v)
{
    must(v->refs > 0);
    if (--v->refs > 0)
        return;
    if (v->chunked)
        chunks_free(s, chunks_of(v));
    slab_free(s, v);
}
