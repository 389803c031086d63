/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks: the pieces of large values, bytes to structs and back, checked. Pure functions. A chunk
 * is a head of whole sectors, with a checksum for each 16 KiB of data, then the data. What a range
 * read needs is the head and the units that the range touches.
 */
#ifndef KVASIR_KV_BLOBKV_CHUNK_H
#define KVASIR_KV_BLOBKV_CHUNK_H

#include "kv/drivers/blobkv/codec.h"
#include "kv/drivers/blobkv/format.h"

#define BKV_UNITS_MAX (BKV_CHUNK_MAX / BKV_UNIT_BYTES)
/* Of the longest head: sealed, the longest key, sectors of 4 KiB. */
#define BKV_CHUNK_HEAD_MAX 12288u
static_assert(sizeof(struct bkv_chunk_head) + BKV_UNITS_MAX * (4 + BKV_SEAL_BYTES) +
                      BKV_SEAL_BYTES + BKV_KEY_MAX <= BKV_CHUNK_HEAD_MAX, "chunk head");

/** Units that `data_len` bytes are in. */
static inline uint32_t bkv_units(uint32_t data_len)
{
    return (data_len + BKV_UNIT_BYTES - 1) / BKV_UNIT_BYTES;
}

/** Bytes of a head with its padding. */
static inline uint32_t bkv_chunk_head_len(bool sealed, uint32_t key_len, uint32_t data_len,
                                          uint32_t sector_bytes)
{
    uint32_t per_unit = 4 + (sealed ? BKV_SEAL_BYTES : 0);
    uint32_t used = (uint32_t)sizeof(struct bkv_chunk_head) + key_len +
                    (sealed ? BKV_SEAL_BYTES : 0) + bkv_units(data_len) * per_unit;

    return (uint32_t)round_up_u64(used, sector_bytes);
}

/** Writes the fields of a head that the seals of units authenticate: before them and the rest. */
void bkv_chunk_begin(struct bkv_chunk_head *head, uint8_t flags, uint32_t data_len,
                     uint32_t key_len, uint64_t value_id, uint64_t offset);
/** Where the head keeps the checksum (le32) of unit i, and its nonce and tag. */
uint8_t *bkv_chunk_crc_at(struct bkv_chunk_head *head, uint32_t unit);
uint8_t *bkv_chunk_seal_at(struct bkv_chunk_head *head, uint32_t unit);
/** Encrypts all units in place, if the head says so. 0; -EIO. */
int bkv_chunk_seal(struct bkv_codec *codec, struct bkv_chunk_head *head, uint8_t *data);
/** The checksums of all units, of data that lie in iovecs and will lie at addr + head_len. */
void bkv_chunk_sum(struct bkv_chunk_head *head, uint64_t addr, uint32_t gen, uint32_t head_len,
                   const struct iovec *iov, unsigned iovcnt);
/** The rest: key (sealed if the head says so), zeroes up to head_len, the head's checksum, which is
 * returned in *out_crc. 0; -EIO. */
int bkv_chunk_finish(struct bkv_codec *codec, struct bkv_chunk_head *head, struct bytes key,
                     uint64_t addr, uint32_t gen, uint32_t head_len, uint32_t *out_crc);

/**
 * A head whose data have moved with it, sealed or not: new checksums for [addr, gen), of data in
 * one piece. Needs no key. Returns the new checksum of the head.
 */
uint32_t bkv_chunk_moved(struct bkv_chunk_head *head, uint64_t addr, uint32_t gen,
                         uint32_t head_len, const uint8_t *data);

/**
 * Checks the head at buf, which lies at `addr`. Returns its length without padding; -EBADMSG it is
 * none, damaged, of another place or life; -E2BIG it is longer than `len` (*out_need bytes would
 * do).
 */
int bkv_chunk_head_check(const uint8_t *buf, size_t len, uint64_t addr, uint32_t gen,
                         uint32_t *out_need);
/** The key of a head that was checked, in it or decrypted into scratch (BKV_KEY_MAX bytes). 0;
 * -EACCES; -EBADMSG. */
int bkv_chunk_key(struct bkv_codec *codec, const struct bkv_chunk_head *head, uint8_t *scratch,
                  struct bytes *out_key);
/** Compares data of units [first, ...), which lie in iovecs from their start, with the checksums of
 * a head that was checked. 0; -EBADMSG. */
int bkv_chunk_units_check(const struct bkv_chunk_head *head, uint64_t addr, uint32_t gen,
                          uint32_t head_len, uint32_t first, uint32_t n, const struct iovec *iov,
                          unsigned iovcnt);
/** Decrypts units [first, first + n) in place; `data` begins with the first. 0; -EACCES;
 * -EBADMSG. */
int bkv_chunk_units_open(struct bkv_codec *codec, const struct bkv_chunk_head *head,
                         uint32_t first, uint32_t n, uint8_t *data);

/** Bytes of unit i of a chunk. */
static inline uint32_t bkv_unit_len(uint32_t data_len, uint32_t unit)
{
    return MIN(BKV_UNIT_BYTES, data_len - unit * BKV_UNIT_BYTES);
}

#endif
