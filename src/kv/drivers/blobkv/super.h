/* SPDX-License-Identifier: Apache-2.0 */
/* The super slots, and the heads of segments and blocks: bytes, checked. Pure functions. */
#ifndef KVASIR_KV_BLOBKV_SUPER_H
#define KVASIR_KV_BLOBKV_SUPER_H

#include "kv/drivers/blobkv/format.h"

#include "base/err.h"

static inline uint64_t bkv_super_addr(unsigned slot)
{
    return (uint64_t)slot * BKV_SLOT_BYTES;
}

/** How many epochs have begun since the one in which the table was written. */
static inline uint32_t bkv_epochs(const struct bkv_super *sb)
{
    uint32_t now = le32_get(sb->epoch), then = le32_get(sb->table_epoch);

    return now > then ? now - then : 0;
}

/** Computes the checksum for a slot. */
void bkv_super_seal(struct bkv_super *sb, unsigned slot);
/** 0; with text: -ENODATA all zeroes; -EBADMSG; -ENOTSUP a version or feature we do not know. */
int bkv_super_check(const struct bkv_super *sb, unsigned slot, struct err *why);

struct bkv_seg_info {
    uint32_t segment, gen, prev_end;
    uint8_t stream;
    uint64_t order, prev_order, first_seq;
};
/** Writes a segment head of sector_bytes at `out`, zeroes behind it. */
void bkv_seg_head_encode(const struct bkv_seg_info *in, const uint8_t uuid[16], uint64_t addr,
                         uint8_t *out, uint32_t sector_bytes);
/** 0; -ENODATA there is none (or one of another store); -EBADMSG: it is damaged. */
int bkv_seg_head_decode(const uint8_t *buf, const uint8_t uuid[16], uint64_t addr,
                        struct bkv_seg_info *out);

struct bkv_block_info {
    uint32_t len_bytes, nrecords, number, durable;
    uint64_t first_seq;
};
void bkv_block_head_encode(const struct bkv_block_info *in, uint64_t addr, uint32_t gen,
                           uint32_t salt, uint8_t *out);
/** 0; -EBADMSG none begins here. */
int bkv_block_head_decode(const uint8_t *buf, uint64_t addr, uint32_t gen, uint32_t salt,
                          struct bkv_block_info *out);

#endif
