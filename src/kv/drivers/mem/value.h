/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One version of a value: a head, and its bytes right behind it (small ones), or in chunks of
 * 64 KiB and a tail of one or two smaller pieces. Nothing larger than a chunk is ever contiguous.
 * Chunks that are full can be shared by several versions (append).
 */
#ifndef KVASIR_KV_MEM_VALUE_H
#define KVASIR_KV_MEM_VALUE_H

#include "base/bytes.h"
#include "base/slab.h"

#define MEM_CHUNK_BYTES SLAB_SPAN_BYTES
#define MEM_PAGE_SLOTS 512u
#define MEM_FULL_MAX (MEM_PAGE_SLOTS * MEM_PAGE_SLOTS)
#define MEM_VALUE_MAX ((uint64_t)MEM_FULL_MAX * MEM_CHUNK_BYTES) /* 16 GiB */
#define MEM_LEN_UNKNOWN UINT64_MAX
#define MEM_SEQ_LIVE UINT64_MAX

struct mem_entry;

struct mem_value {
    struct mem_value *older;    /* the version before it that is still kept */
    struct mem_entry *entry;
    struct mem_value *pin_next; /* list of the snapshot that keeps it */
    uint64_t seq;               /* the version: when it became visible */
    uint64_t end_seq;           /* when it was replaced or deleted; MEM_SEQ_LIVE */
    uint64_t len;               /* bytes; of a stream of unknown length: MEM_LEN_UNKNOWN */
    uint32_t refs;
    bool chunked;
    _Alignas(16) uint8_t data[]; /* the bytes, or a struct mem_chunks */
};
#define MEM_INLINE_MAX (8192 - sizeof(struct mem_value))

/** Room for `len` bytes, of which the content is not set. NULL: no space. One reference. */
struct mem_value *mem_value_new(struct slab *s, uint64_t len);
/** The same, but room is made as it is written. `len` may be MEM_LEN_UNKNOWN. */
struct mem_value *mem_value_begin(struct slab *s, uint64_t len);
/** `old` and room for `more_len` bytes after it. */
struct mem_value *mem_value_append(struct slab *s, struct mem_value *old, uint64_t more_len);
/** A value of unknown length has `len` bytes: its last chunk is cut to measure. 0, -ENOSPC. */
int mem_value_finish(struct slab *s, struct mem_value **pv, uint64_t len);

/** Copies `len` bytes of the iovecs to offset `off`; inside the value. 0 or -ENOSPC. */
int mem_value_write(struct slab *s, struct mem_value *v, uint64_t off, const struct iovec *iov,
                    unsigned iovcnt, uint64_t len);
/** Copies [off, off + len) to the iovecs; inside the value. */
void mem_value_read(struct mem_value *v, uint64_t off, const struct iovec *iov, unsigned iovcnt,
                    uint64_t len);
/** Copies all `len` bytes of `src` to offset `off` of `dst`. 0 or -ENOSPC. */
int mem_value_copy(struct slab *s, struct mem_value *dst, uint64_t off, struct mem_value *src,
                   uint64_t len);

static inline void mem_value_ref(struct mem_value *v)
{
    v->refs++;
}
/** The last reference frees. */
void mem_value_put(struct slab *s, struct mem_value *v);

#endif
