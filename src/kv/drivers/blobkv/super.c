/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/super.h"

#include "base/bytes.h"

static uint32_t super_crc(const struct bkv_super *sb, unsigned slot)
{
    return bkv_crc(bkv_super_addr(slot), 0, (const uint8_t *)sb + 12, sizeof(*sb) - 12);
}

void bkv_super_seal(struct bkv_super *sb, unsigned slot)
{
    sb->crc = le32_make(super_crc(sb, slot));
}

static bool is_pow2(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

/* Numbers that the rest relies on; the checksum was right. */
static bool sizes_fit(const struct bkv_super *sb)
{
    uint32_t segment = le32_get(sb->segment_bytes);
    uint32_t sector = le32_get(sb->sector_bytes);

    return is_pow2(segment) && is_pow2(sector) && segment >= 2 * BKV_SLOT_BYTES &&
           segment <= 1u << 30 && sector >= 512 && sector <= BKV_SLOT_BYTES &&
           le32_get(sb->nsegments) >= 2 && le32_get(sb->nextents) <= BKV_ROOT_EXTENTS &&
           (uint64_t)le32_get(sb->nsegments) * segment <= 1ull << BKV_ADDR_BITS;
}

/* How many shards there are and which one this is: what the feature bit says. */
static bool shards_fit(const struct bkv_super *sb)
{
    uint32_t n = le16_get(sb->shards.nshards);

    if ((le32_get(sb->incompat) & BKV_INCOMPAT_SHARDS) == 0)
        return n == 0;
    return n >= 2 && n <= BKV_SHARDS_MAX && le16_get(sb->shards.shard) < n;
}

int bkv_super_check(const struct bkv_super *sb, unsigned slot, struct err *why)
{
    if (bytes_are_zero(sb, sizeof(*sb)))
        return err_set(why, -ENODATA, "super slot %u is empty", slot);
    if (memcmp(sb->magic, BKV_SUPER_MAGIC, sizeof(sb->magic)) != 0)
        return err_set(why, -EBADMSG, "super slot %u has a wrong magic", slot);
    if (super_crc(sb, slot) != le32_get(sb->crc))
        return err_set(why, -EBADMSG, "super slot %u has a wrong checksum", slot);
    if (le32_get(sb->version) != BKV_VERSION)
        return err_set(why, -ENOTSUP, "the store has format version %u; this program knows %u",
                       le32_get(sb->version), BKV_VERSION);
    if ((le32_get(sb->incompat) & ~BKV_INCOMPAT_KNOWN) != 0)
        return err_set(why, -ENOTSUP,
                       "the store has features (%08x) that this program does not "
                       "know",
                       le32_get(sb->incompat) & ~BKV_INCOMPAT_KNOWN);
    if (!sizes_fit(sb) || !shards_fit(sb))
        return err_set(why, -EBADMSG, "super slot %u has sizes that cannot be", slot);
    return 0;
}

void bkv_seg_head_encode(const struct bkv_seg_info *in, const uint8_t uuid[16], uint64_t addr,
                         uint8_t *out, uint32_t sector_bytes)
{
    struct bkv_seg_head head = {
        .magic = le32_make(BKV_SEG_MAGIC),
        .segment = le32_make(in->segment),
        .gen = le32_make(in->gen),
        .stream = in->stream,
        .prev_end = le32_make(in->prev_end),
        .order = le64_make(in->order),
        .prev_order = le64_make(in->prev_order),
        .first_seq = le64_make(in->first_seq),
    };

    memcpy(head.uuid, uuid, sizeof(head.uuid));
    head.crc = le32_make(bkv_crc(addr, in->gen, (uint8_t *)&head + 4, sizeof(head) - 4));
    memset(out, 0, sector_bytes);
    memcpy(out, &head, sizeof(head));
}

int bkv_seg_head_decode(const uint8_t *buf, const uint8_t uuid[16], uint64_t addr,
                        struct bkv_seg_info *out)
{
    const struct bkv_seg_head *head = (const struct bkv_seg_head *)buf;
    uint32_t gen = le32_get(head->gen);

    if (le32_get(head->magic) != BKV_SEG_MAGIC || memcmp(head->uuid, uuid, 16) != 0)
        return -ENODATA;
    if (bkv_crc(addr, gen, buf + 4, sizeof(*head) - 4) != le32_get(head->crc))
        return -EBADMSG;
    if (head->stream == 0 || head->stream >= BKV_STREAMS || gen == 0)
        return -EBADMSG;
    *out = (struct bkv_seg_info){
        .segment = le32_get(head->segment),
        .gen = gen,
        .stream = head->stream,
        .prev_end = le32_get(head->prev_end),
        .order = le64_get(head->order),
        .prev_order = le64_get(head->prev_order),
        .first_seq = le64_get(head->first_seq),
    };
    return 0;
}

void bkv_block_head_encode(const struct bkv_block_info *in, uint64_t addr, uint32_t gen,
                           uint32_t salt, uint8_t *out)
{
    struct bkv_block_head head = {
        .magic = le32_make(BKV_BLOCK_MAGIC),
        .len_bytes = le32_make(in->len_bytes),
        .nrecords = le32_make(in->nrecords),
        .number = le32_make(in->number),
        .durable = le32_make(in->durable),
        .first_seq = le64_make(in->first_seq),
    };

    head.crc =
        le32_make(bkv_crc(addr, bkv_block_gen(gen, salt), (uint8_t *)&head + 4, sizeof(head) - 4));
    memcpy(out, &head, sizeof(head));
}

int bkv_block_head_decode(const uint8_t *buf, uint64_t addr, uint32_t gen, uint32_t salt,
                          struct bkv_block_info *out)
{
    const struct bkv_block_head *head = (const struct bkv_block_head *)buf;

    if (le32_get(head->magic) != BKV_BLOCK_MAGIC)
        return -EBADMSG;
    if (bkv_crc(addr, bkv_block_gen(gen, salt), buf + 4, sizeof(*head) - 4) != le32_get(head->crc))
        return -EBADMSG;
    *out = (struct bkv_block_info){
        .len_bytes = le32_get(head->len_bytes),
        .nrecords = le32_get(head->nrecords),
        .number = le32_get(head->number),
        .durable = le32_get(head->durable),
        .first_seq = le64_get(head->first_seq),
    };
    return out->len_bytes < sizeof(*head) ? -EBADMSG : 0;
}
