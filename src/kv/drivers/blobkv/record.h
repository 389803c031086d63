/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records: bytes to structs and back, checked. Pure functions; a codec holds what compression and
 * encryption need. What they transform is the value (and, when encrypted, the key): the head stays
 * readable, so that a store can be checked without its key.
 */
#ifndef KVASIR_KV_BLOBKV_RECORD_H
#define KVASIR_KV_BLOBKV_RECORD_H

#include "kv/drivers/blobkv/codec.h"
#include "kv/drivers/blobkv/format.h"
#include "kv/drivers/blobkv/place.h"

/** Bytes of a record in its segment, a multiple of BKV_ALIGN, when nothing is transformed; with a
 * codec never more than this + BKV_CODEC_EXTRA. */
static inline uint32_t bkv_record_len(uint32_t key_len, uint32_t stored_len)
{
    return (uint32_t)round_up_u64(sizeof(struct bkv_record) + key_len + stored_len, BKV_ALIGN);
}

/** No record is longer. */
#define BKV_RECORD_MAX                                                                             \
    ((uint32_t)sizeof(struct bkv_record) + BKV_KEY_MAX + BKV_INLINE_MAX + BKV_CODEC_EXTRA +        \
     BKV_ALIGN)

struct bkv_record_in {
    uint8_t type; /* enum bkv_type */
    struct bytes key;
    uint64_t hash; /* bkv_key_hash() of it */
    uint64_t seq;
    const struct iovec *iov; /* the value: value_bytes of it from its start */
    unsigned iovcnt;
    uint32_t value_bytes;    /* what is stored (LARGE: the extents) */
    uint64_t value_len;      /* what the user knows */
    uint8_t flags;           /* BKV_F_UNFLUSHED, or 0 */
};

/**
 * Writes a record at `out`, which will lie at `addr` in life `gen`. Returns its length (a multiple
 * of 16, the padding zeroed), or -E2BIG when `room` is too small, -EIO when encryption fails.
 */
int bkv_record_encode(struct bkv_codec *codec, const struct bkv_record_in *in, uint64_t addr,
                      uint32_t gen, uint8_t *out, size_t room);

struct bkv_record_out {
    uint8_t type, flags;
    uint64_t seq, value_len;
    uint32_t rec_len, stored_len, key_len, key_hash;
    struct bytes key;    /* in the buffer; empty when encrypted: see bkv_record_open() */
    struct bytes stored; /* in the buffer */
};

/**
 * Checks the record at buf (bytes that lie at `addr`) and takes it apart. Returns its length;
 * -EBADMSG it is none, or damaged, or of another place or life; -E2BIG it is longer than `len`
 * (*out_need, when not NULL, says how long its head claims to be; the checksum is not looked at).
 */
int bkv_record_decode(const uint8_t *buf, size_t len, uint64_t addr, uint32_t gen,
                      struct bkv_record_out *out, uint32_t *out_need);

/** Takes apart what bkv_record_decode() has checked before, when it was read. */
void bkv_record_view(const uint8_t *buf, struct bkv_record_out *out);

/** The key: in the buffer, or decrypted into `scratch` (BKV_KEY_MAX bytes). 0; -EACCES no codec or
 * the wrong key; -EBADMSG. */
int bkv_record_key(struct bkv_codec *codec, const struct bkv_record_out *rec, uint8_t *scratch,
                   struct bytes *out_key);

/**
 * Copies bytes [off, off + len) of the value (LARGE: of the extents) into the iovecs, decrypted and
 * decompressed; *out_moved is less at the end of the value. `scratch`: BKV_SCRATCH_BYTES, touched
 * only for records that are transformed. 0; -EBADMSG; -EACCES.
 */
#define BKV_SCRATCH_BYTES (2 * (BKV_INLINE_MAX + BKV_KEY_MAX + 256))
int bkv_record_value(struct bkv_codec *codec, const struct bkv_record_out *rec, uint64_t off,
                     uint64_t len, const struct iovec *iov, unsigned iovcnt, uint8_t *scratch,
                     uint64_t *out_moved);

/**
 * The record of `key` that begins in the first sector at `buf` (which lies at `addr`, `len` bytes
 * are there): the location table knows the sector only. Looks at each multiple of 16. Returns the
 * record's offset in the buffer and *out; -ENOENT no record of this key begins there; -E2BIG one
 * seems to but is longer (*out_need bytes from buf on would do); -EBADMSG.
 */
int bkv_record_search(struct bkv_codec *codec, const uint8_t *buf, size_t len, uint64_t addr,
                      uint32_t gen, uint32_t sector_bytes, struct bytes key, uint64_t hash,
                      uint8_t *scratch, struct bkv_record_out *out, uint32_t *out_need);

#endif
