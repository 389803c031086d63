/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What blobkv writes (docs/formats/blobkv.md tells the whole story). A store is one thin blob, cut
 * into segments. Segment 0 holds the two super slots; every other one belongs to a stream, which
 * only appends to it: blocks of records (hot, cold), chunks of large values (large), pages of the
 * index (index). Addresses are byte offsets in the blob, below 2^48. "Sector" is the block of the
 * device under the store (512 or 4096), frozen in the super block.
 *
 * Every structure's checksum is CRC-32C and covers where it is and which life of its segment it
 * belongs to (`gen`, larger each time the segment is used again), so what is misdirected, stale or
 * torn is seen. No generation is used twice, not by a life of which a crash has left but scraps:
 * the next one's is the segment's generation in the table + 1 + the epochs since that. The checksum
 * is computed by bkv_crc(): over the bytes after the crc field, seeded with the address and the
 * generation, which are therefore not stored in records.
 */
#ifndef KVASIR_KV_BLOBKV_FORMAT_H
#define KVASIR_KV_BLOBKV_FORMAT_H

#include "base/crc.h"
#include "base/endian.h"
#include "base/util.h"

#include <assert.h>

#define BKV_VERSION 1u
#define BKV_ADDR_BITS 48
#define BKV_ALIGN 16u           /* of records */
#define BKV_PAGE_BYTES 4096u    /* of the index and the super slots */
#define BKV_INLINE_MAX 32768u   /* longer values are chunks and a LARGE record */
#define BKV_CHUNK_MAX (4u << 20) /* usually 1 MiB: see large.h */
#define BKV_UNIT_BYTES 16384u   /* a chunk's checksums are of so many bytes each */
#define BKV_KEY_MAX 2048u

/* CRC-32C of `len` bytes at `p`, which lie at `addr` in life `gen` of their segment. */
static inline uint32_t bkv_crc(uint64_t addr, uint32_t gen, const void *p, size_t len)
{
    uint8_t where[12];

    le64_put(where, addr);
    le32_put(where + 8, gen);
    return crc32c(crc32c(0, where, sizeof(where)), p, len);
}

enum bkv_stream {
    BKV_HOT = 1, /* records as they come */
    BKV_COLD,    /* records that the collector has moved */
    BKV_LARGE,   /* chunks */
    BKV_INDEX,   /* leaves and checkpoints */
    BKV_STREAMS
};

/* --- segment head: first sector of each segment but segment 0 */

#define BKV_SEG_MAGIC 0x47455342u /* "BSEG" */
struct bkv_seg_head {
    le32 crc;         /*  0  of the rest of these 64 bytes */
    le32 magic;       /*  4 */
    uint8_t uuid[16]; /*  8  of the store */
    le32 segment;     /* 24  its number */
    le32 gen;         /* 28  from 1 */
    uint8_t stream;   /* 32  enum bkv_stream */
    uint8_t rsvd[3];  /* 33 */
    le32 prev_end;    /* 36  bytes of the stream's segment before this one that are valid; what
                             follows there is a torn tail and nobody's loss. 0: there is none */
    le64 order;       /* 40  numbers all segments of the store in the order of their opening */
    le64 prev_order;  /* 48  of the stream's segment before this one, 0: none */
    le64 first_seq;   /* 56  no record in it has a smaller number, unless it was moved */
};
static_assert(sizeof(struct bkv_seg_head) == 64, "segment head");

/* --- block: what one group commit appends to a hot or cold segment */
/*
 * Head, then records, each at a multiple of 16; zeroes up to the next sector. A block is there when
 * its head and every record in it are right; else none of it is (that is what makes a batch whole).
 * A block holds at most one record of a key. Its head's checksum is seeded with the generation and
 * the store's salt (bkv_block_gen), so that a value which looks like a block is none. A block that
 * is not right is damage when a later one of its segment says that it was durable; else the log
 * ends there.
 */
#define BKV_BLOCK_MAGIC 0x4b4c4242u /* "BBLK" */
struct bkv_block_head {
    le32 crc;        /*  0  of the rest of these 32 bytes */
    le32 magic;      /*  4 */
    le32 len_bytes;  /*  8  head and records, without the zeroes */
    le32 nrecords;   /* 12 */
    le32 number;     /* 16  in its segment, from 0 */
    le32 durable;    /* 20  blocks of this segment that had been flushed when it was written */
    le64 first_seq;  /* 24  of its records that are new; the last one if all were moved */
};
static_assert(sizeof(struct bkv_block_head) == 32, "block head");

/** What seeds the checksum of a block's head; `salt`: the low half of the store's hash key. */
static inline uint32_t bkv_block_gen(uint32_t gen, uint32_t salt)
{
    return gen ^ salt;
}

/* --- record */

enum bkv_type {
    BKV_VALUE = 1, /* key and value */
    BKV_LARGE_VALUE,     /* key and an array of bkv_extent */
    BKV_DELETE,    /* key */
    BKV_TXN,       /* first in its block: struct bkv_txn_mark; its key is one zero byte and says
                      nothing. Never in the index */
};
#define BKV_F_ZSTD 1u
#define BKV_F_LZ4 2u
#define BKV_F_SEALED 4u /* encrypted: nonce, then key and value, then tag; stored_len counts nonce
                           and tag; bytes 4 to 31 of the head are authenticated with them */
#define BKV_F_KNOWN 7u
#define BKV_F_UNFLUSHED 8u /* LARGE: its chunks had been written, and not flushed, when it was:
                              where its block may not be durable they have to be looked at */
#define BKV_UNFLUSHED_MAX (8u << 20) /* no such value is longer */

struct bkv_record {
    le32 crc;        /*  0  of all that follows: head, key, stored value */
    le32 key_hash;   /*  4  low half of the key's hash under the store's secret */
    le32 stored_len; /*  8  bytes after head and key */
    le16 key_len;    /* 12  1..2048 */
    uint8_t type;    /* 14  enum bkv_type */
    uint8_t flags;   /* 15  BKV_F_*; an unknown bit: refuse */
    le64 value_len;  /* 16  of the value as its user knows it */
    le64 seq;        /* 24  from 1, one more for each change of the store: the value's version */
    uint8_t data[];  /* 32  key, then what is stored */
};
static_assert(sizeof(struct bkv_record) == 32, "record head");

/* --- a batch over shards: what a TXN record holds */
/*
 * The shards that have a part of the batch, but for shard 0, append it as a block that is PREPARED.
 * When all are durable, shard 0 appends one that is COMMITTED, with its own part, if it has one:
 * that it is durable makes the batch count. A block after a prepared one says what became of that;
 * when there is none, shard 0 knows: docs/formats/blobkv.md, section 9.
 */
#define BKV_TXN_PREPARED 1u  /* the records of this block count if the batch does */
#define BKV_TXN_COMMITTED 2u /* in shard 0: the batch counts */
struct bkv_txn_mark {
    le64 id;           /*  0  of the batch, random; 0: this block is of none */
    le64 shards;       /*  8  COMMITTED: bit i: shard i has a prepared part */
    le64 prev_id;      /* 16  the batch whose part the last prepared block before this one is; 0: it
                              has been told before, or there is none */
    uint8_t kind;      /* 24  BKV_TXN_*; 0: only tells of prev_id */
    uint8_t prev_counts; /* 25  1: it does */
    uint8_t rsvd[6];   /* 26 */
};
static_assert(sizeof(struct bkv_txn_mark) == 32, "transaction mark");

/* --- chunk: a piece of a large value */
/*
 * Head, checksums, seals and key, zeroes up to the next sector, then data_len bytes, zeroes up to
 * the next sector. The checksums are of the stored bytes, unit by unit, each by bkv_crc() at its
 * address. When encrypted each unit is so on its own (with bytes 8 to 31 of the head and le32 its
 * number authenticated), and so is the key (with bytes 8 to 31): nonce, key, tag.
 */
#define BKV_CHUNK_MAGIC 0x4e4b4342u /* "BCKN" */
struct bkv_chunk_head {
    le32 crc;        /*  0  of the rest of the head, the checksums, the seals and the key */
    le32 magic;      /*  4 */
    le32 data_len;   /*  8  as stored */
    le16 key_len;    /* 12  without nonce and tag */
    uint8_t flags;   /* 14  BKV_F_*; compressed: all data as one */
    uint8_t rsvd;    /* 15 */
    le64 value_id;   /* 16  same in all chunks that were written as one value */
    le64 offset;     /* 24  of the first byte, in what was written then, before compression */
    uint8_t data[];  /* 32  le32 per unit; when encrypted 28 bytes per unit: nonce, tag; the key */
};
static_assert(sizeof(struct bkv_chunk_head) == 32, "chunk head");

/* What a LARGE record holds: le64 value_id, then these, in order. Values that were appended to have
 * extents of several value_ids: what binds an extent to its chunk is the head's checksum. */
struct bkv_extent {
    le64 addr;     /*  0  of the chunk's head */
    le32 data_len; /*  8 */
    le32 head_len; /* 12  bytes of head, checksums, key and zeroes: data begins after them */
    le32 raw_len;  /* 16  bytes of the value: data_len before compression */
    le32 head_crc; /* 20  bkv_chunk_head.crc */
};
static_assert(sizeof(struct bkv_extent) == 24, "extent");
#define BKV_LARGE_HEAD_BYTES 8u
#define BKV_EXTENTS_MAX ((BKV_INLINE_MAX - BKV_LARGE_HEAD_BYTES) / 24u)

/*
 * A value of more extents has lists: chunks whose data are extents, in order. Its record holds le64
 * value_id, a mark, which is an extent with addr 0 (no chunk has that) and in raw_len the number of
 * all extents, and then for each list one of these. The super slot says that there may be such.
 */
struct bkv_list_ref {
    struct bkv_extent e; /*  0  the list: never compressed, data_len a multiple of 24 */
    le64 value_len;      /* 24  bytes of the value that its extents have */
};
static_assert(sizeof(struct bkv_list_ref) == 32, "list");
#define BKV_LISTS_HEAD_BYTES (BKV_LARGE_HEAD_BYTES + 24u)
#define BKV_LIST_REFS_MAX ((BKV_INLINE_MAX - BKV_LISTS_HEAD_BYTES) / 32u)
#define BKV_LIST_EXTENTS_MAX ((1u << 20) / 24u)

/* --- index leaf: 4096 bytes; see leaf.h for the entries */

#define BKV_LEAF_MAGIC 0x46454c42u /* "BLEF" */

/* --- super slot: 4096 bytes at 0 and at 64 KiB of segment 0, written in turns */

#define BKV_SUPER_MAGIC "KVASIRKV"
#define BKV_SLOT_BYTES 65536u /* distance of the two slots */
#define BKV_ROOT_EXTENTS 160

#define BKV_INCOMPAT_ZSTD 1u
#define BKV_INCOMPAT_LZ4 2u
#define BKV_INCOMPAT_SEALED 4u /* records, leaves and checkpoints are encrypted */
#define BKV_INCOMPAT_LISTS 8u  /* values may have lists of extents */
#define BKV_INCOMPAT_SHARDS 16u /* one of several shards: bkv_super.shards counts */
#define BKV_INCOMPAT_UNFLUSHED 32u /* records may have BKV_F_UNFLUSHED */
#define BKV_INCOMPAT_KNOWN 63u

struct bkv_position {
    le32 segment; /* 0: the stream has none open */
    le32 offset;  /* the next block goes there */
    le32 number;  /* and has this number */
    le32 rsvd;
};

struct bkv_root_extent {
    le64 addr;  /* of whole pages in one segment */
    le32 len;   /* bytes that count */
    le32 crc;   /* bkv_crc() of them, gen 0 */
};

#define BKV_SHARDS_MAX 64u

struct bkv_super_shards {
    uint8_t set[16];     /*  0  shard 0's uuid */
    le16 nshards;        /* 16  2..64 */
    le16 shard;          /* 18  which one this is */
    uint8_t making;      /* 20  in shard 0: the others may be there or not; none holds anything */
    uint8_t rsvd[11];    /* 21 */
    le64 txn[BKV_SHARDS_MAX]; /* 32  in shard 0: the last batch that counts of those in which shard
                                     i has a prepared part; 0: none */
};
static_assert(sizeof(struct bkv_super_shards) == 544, "shards");

struct bkv_super {
    uint8_t magic[8];    /*   0 */
    le32 crc;            /*   8  of bytes 12 to 4095, seeded with the slot's address and gen 0 */
    le32 version;        /*  12 */
    le32 incompat;       /*  16  an unknown bit: refuse */
    le32 compat;         /*  20  an unknown bit: no matter */
    uint8_t uuid[16];    /*  24 */
    le64 slot_seq;       /*  40  one more for each write; the larger valid one counts */
    le32 segment_bytes;  /*  48  a power of two */
    le32 sector_bytes;   /*  52 */
    le32 nsegments;      /*  56  at the time of writing, segment 0 included */
    le32 epoch;          /*  60  one more for each open that writes, durable before it does */
    le64 last_seq;       /*  64  the checkpoint has all changes up to here */
    le64 last_order;     /*  72  of the segments opened up to here */
    le64 nkeys;          /*  80  in the checkpoint */
    le64 hash_key[2];    /*  88  the store's secret for key hashes */
    struct bkv_position pos[BKV_STREAMS]; /* 104  [0] unused: where replay begins */
    le32 root_kind;      /* 184  reserved: 0 */
    le32 nextents;       /* 188  of the checkpoint: fences, then the segment table (checkpoint.h) */
    struct bkv_root_extent extent[BKV_ROOT_EXTENTS]; /* 192 */
    uint8_t seal[128];   /* 2752  what opening an encrypted store needs (codec.h); else zero */
    uint8_t compress;    /* 2880  of what is written now: enum bkv_compress */
    uint8_t level;       /* 2881  and how hard; 0: the library's own */
    uint8_t rsvd[2];     /* 2882 */
    le32 table_epoch;    /* 2884  in which the segment table was written */
    uint8_t rsvd2[664];  /* 2888 */
    struct bkv_super_shards shards; /* 3552  zero in a store that has but one */
};
static_assert(sizeof(struct bkv_super) == BKV_PAGE_BYTES, "super slot");
static_assert(offsetof(struct bkv_super, pos) == 104, "super slot");
static_assert(offsetof(struct bkv_super, extent) == 192, "super slot");
static_assert(offsetof(struct bkv_super, seal) == 2752, "super slot");
static_assert(offsetof(struct bkv_super, table_epoch) == 2884, "super slot");
static_assert(offsetof(struct bkv_super, shards) == 3552, "super slot");

/* One segment in the checkpoint's table. */
struct bkv_seg_entry {
    le32 gen;        /*  0 */
    le32 live_bytes; /*  4  referenced by the index (see space.h) */
    le64 order;      /*  8 */
    uint8_t stream;  /* 16  0: free */
    uint8_t flags;   /* 17  BKV_SEG_* */
    uint8_t rsvd[2]; /* 18 */
    le32 end;        /* 20  bytes valid in it */
};
static_assert(sizeof(struct bkv_seg_entry) == 24, "segment entry");
#define BKV_SEG_ALLOCATED 1u /* the blob has clusters for it */
#define BKV_SEG_WRITTEN 2u   /* and all of them have been written since */

#endif
