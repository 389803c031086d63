/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large values: written as chunks into the large stream, several at once, then flushed, then named
 * by a LARGE record. Memory is two small pools of chunk buffers; what is aligned goes between the
 * user's memory and the device without a copy.
 *
 * Live bytes: a chunk counts as held from its placing until the LARGE record that names it has
 * been applied, which makes it live; the extents of a record that nobody refers to any more are
 * taken off by the core. A value that was appended to names the chunks of the old one as well: they
 * are counted once per record that names them.
 */
#ifndef KVASIR_KV_BLOBKV_LARGE_H
#define KVASIR_KV_BLOBKV_LARGE_H

#include "kv/drivers/blobkv/blobkv.h"
#include "kv/drivers/blobkv/chunk.h"

/* The first chunks of a value are of up to 1 MiB; a value of more than so many is huge, and its
 * further ones are of up to 4 MiB, so that there are fewer to name. */
#define BKV_CHUNK_USUAL (1u << 20)
#define BKV_CHUNKS_USUAL 256u

#define BKV_CHUNK_IOV 40u

struct bkv_large_out;
struct bkv_chunk_pool;

/** One chunk on its way: its head, its data unless they are in the user's memory, its I/O. */
struct bkv_chunk_buf {
    struct list link;
    struct bkv_chunk_pool *pool;
    uint8_t *mem;
    uint8_t *data; /* BKV_CHUNK_MAX and a page; before it there is room for the head */
    uint32_t used; /* how much of it was, at most, since it was taken */
    struct iovec iov[BKV_CHUNK_IOV]; /* [0] the head, then data_iovs of data */
    unsigned data_iovs;
    struct blob_req io, head_io;
    unsigned pending; /* I/O under way */
    int rc;
    struct bkv_large_out *out; /* writing */
    /* Reading: bytes [from, to) of the chunk before compression; units [first, first + units) are
     * read; user memory from user_off on; what of [from, to) is there already ends at direct_to. */
    struct bkv *s;
    struct bkv_extent e;
    uint32_t gen, from, to, first, units, direct_to;
    uint64_t user_off;
    struct rt_cond *changed;
};

struct bkv_chunk_pool {
    struct bkv_chunk_buf *buf;
    unsigned n;
    struct list free;
    struct rt_cond freed;
};

/** What a store keeps for large values. */
struct bkv_large {
    struct bkv_chunk_pool writes, reads;
    unsigned writing; /* buffers on their way to the device */
    uint64_t unflushed; /* bytes of values whose records wait for the flush that is theirs, too */
    uint8_t *scratch; /* one chunk, for compression; nobody waits while using it */
    uint32_t chunk_bytes, huge_bytes, align;
    uint32_t extents_max;  /* that a record names itself */
    uint32_t list_extents; /* in one list */
    struct list idle;    /* streams with a part of a chunk: struct bkv_stream_io */
    struct list streams; /* all of them */
    struct list appends; /* keys that are being appended to */
    struct rt_cond append_ended;
    struct list ending;  /* streams that want to end and found no task to do it */
    struct rt_timer end_again;
};

int bkv_large_init(struct bkv *s); /* once sector and segments are known */
/** Frees streams that are still there, too (after a simulated crash). */
void bkv_large_fini(struct bkv *s);
/** The longest value whose extents are sure to fit into lists of one record; 2^48 at most. */
uint64_t bkv_large_val_max(const struct bkv *s);

/** A buffer for writing; waits for one, and makes idle streams give up theirs. */
struct bkv_chunk_buf *bkv_chunk_buf_get(struct rt_task *t, struct bkv *s);
void bkv_chunk_buf_put(struct bkv_chunk_buf *b);

/* --- writing (large.c) */

/** A value that is being written: the chunks so far. For one task at a time, which is shielded. */
struct bkv_large_out {
    struct bkv *s;
    struct bytes key; /* the maker's */
    uint64_t value_id;
    uint64_t len;     /* of the value, so far */
    enum bkv_need need; /* of lists: what the room is for */
    uint8_t *rec;     /* what the LARGE record will hold: value_id, extents; then lists of them */
    unsigned n, nlists, max; /* extents in it, lists, room for both */
    uint8_t *payload; /* what it holds instead when there are lists */
    unsigned pending; /* writes under way */
    int rc;           /* of the first one that failed */
    struct rt_cond changed;
};

void bkv_large_begin(struct bkv_large_out *w, struct bkv *s, struct bytes key);
static inline struct bkv_extent *bkv_large_extent(const struct bkv_large_out *w, unsigned i)
{
    return (struct bkv_extent *)(w->rec + BKV_LARGE_HEAD_BYTES) + i;
}
/** Room for `n` more extents or lists. 0; -EFBIG; -ENOMEM. */
int bkv_large_reserve(struct bkv_large_out *w, unsigned n);
/** Writes the next `len` bytes as chunks. The iovecs are the writer's until bkv_large_settle(). */
int bkv_large_write(struct rt_task *t, struct bkv_large_out *w, const struct iovec *iov,
                    unsigned iovcnt, uint64_t len);
/** Writes raw_len bytes that are in b->data as one chunk; takes the buffer, whatever it returns. */
int bkv_large_write_buf(struct rt_task *t, struct bkv_large_out *w, struct bkv_chunk_buf *b,
                        uint32_t raw_len);
/** How long the next chunk should be at most. */
uint32_t bkv_large_next(const struct bkv_large_out *w);
/** Names chunks that are there already, and holds them. They are live or held now. */
int bkv_large_share(struct bkv_large_out *w, const struct bkv_extent *e, unsigned n);
/** Waits for the writes. Returns the first failure. */
int bkv_large_settle(struct rt_task *t, struct bkv_large_out *w);
/** Waits for the writes and writes lists if there have to be some: what is to be flushed then. The
 * op gets what the record holds, by *iov, which lives as long as the op. On failure: abort. */
int bkv_large_finish(struct rt_task *t, struct bkv_large_out *w, struct bkv_op *op,
                     struct iovec *iov);
/** The op has committed: frees what is left. */
void bkv_large_done(struct bkv_large_out *w);
/** Makes the chunks durable, then commits the LARGE record; `op` has the conditions. Frees all. */
int bkv_large_commit(struct rt_task *t, struct bkv_large_out *w, struct bkv_op *op);
/** Gives everything back. */
void bkv_large_abort(struct rt_task *t, struct bkv_large_out *w);

/* --- lists (large_list.c) */

/** Writes all extents as lists; `out`: what the record holds then. 0; -ENOSPC; -EFBIG; ... */
int bkv_lists_write(struct rt_task *t, struct bkv_large_out *w, struct iovec *out);
/** Whether what a record holds is lists, by their mark. */
bool bkv_stored_has_lists(struct bytes stored);
/** Checks the list that an extent names, read into memory; opens its data in place. */
int bkv_list_check(struct bkv *s, const struct bkv_extent *e, uint8_t *chunk);

/** All that a LARGE record names: n extents, in order, then the lists that they are from. */
struct bkv_extents {
    uint64_t value_id, value_len;
    struct bkv_extent *e;
    unsigned n, nlists;
    unsigned at;   /* where the last read ended: an extent, and where in the value it begins */
    uint64_t base;
};

/** Takes a LARGE record apart, reads and checks its lists. Segments are held or pinned; waits when
 * there are lists. `rec` lives as long; the scratch is not used. 0 (to be freed); -EBADMSG; ... */
int bkv_extents_of(struct rt_task *t, struct bkv *s, const struct bkv_record_out *rec,
                   struct bkv_extents *out);
void bkv_extents_free(struct bkv_extents *x);
/** As they are counted: what bkv_apply() takes. */
static inline struct bytes bkv_extents_bytes(const struct bkv_extents *x)
{
    return bytes_make(x->e, ((size_t)x->n + x->nlists) * sizeof(*x->e));
}
void bkv_extents_pin(struct bkv *s, const struct bkv_extents *x);
void bkv_extents_unpin(struct bkv *s, const struct bkv_extents *x);

/* --- reading (large_read.c) */

/** Reads [off, off + len) of a value whose segments are pinned or held. 0; -EBADMSG; -EIO. */
int bkv_large_read(struct rt_task *t, struct bkv *s, struct bkv_extents *x, uint64_t off,
                   uint64_t len, const struct iovec *iov, unsigned iovcnt, uint64_t *out_moved);

/* --- requests */

/** KV_STORE of more than BKV_INLINE_MAX bytes (large_store.c). */
void bkv_large_store(struct bkv *s, struct kv_req *kv);
/** KV_RETRIEVE of a LARGE record; the caller holds the segments. Sets the request's results. */
int bkv_large_get(struct rt_task *t, struct bkv *s, struct kv_req *kv,
                  const struct bkv_record_out *rec);
/** KV_BATCH (batch.c). */
void bkv_batch_submit(struct bkv *s, struct kv_req *kv);
/** One that is this shard's part of a batch over shards (txn.h); it may have no items. */
void bkv_batch_part(struct bkv *s, struct kv_req *kv, struct bkv_txn_part *part);
/** KV_STORE with KV_F_APPEND (append.c). */
void bkv_append_submit(struct bkv *s, struct kv_req *kv);
/** What is appended: bytes, or chunks that were written before. */
struct bkv_append {
    struct bytes key;
    uint32_t flags; /* KV_F_* */
    uint64_t version;
    const struct iovec *iov;
    unsigned iovcnt;
    uint64_t len;
    struct bkv_large_out *chunks; /* instead of iov; bkv_append_run() ends it, whatever happens */
    uint64_t out_version;
};
int bkv_append_run(struct rt_task *t, struct bkv *s, struct bkv_append *a);

/**
 * Moves what lives out of a segment of chunks (large_gc.c). 0: what records named there they name
 * elsewhere now; the segment is free after checkpoints. An errno: something is still there.
 */
int bkv_large_evacuate(struct rt_task *t, struct bkv *s, uint32_t segment);

/** KV_STORE_OPEN to KV_READ_CLOSE (stream.c). */
void bkv_stream_submit(struct bkv *s, struct kv_req *kv);
/** The shard that the stream of a request lives in. Any reactor. */
struct bkv *bkv_stream_store(const struct kv_req *kv);
/** An idle stream writes the part of a chunk that it has; false: there is none. */
bool bkv_stream_squeeze(struct rt_task *t, struct bkv *s);
void bkv_streams_free(struct bkv *s);
void bkv_streams_end(struct rt_timer *timer);

#endif
