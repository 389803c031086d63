/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One leaf of the index: a page of 4 KiB with keys in order and their places. A key is stored as
 * how much of it the one before shares and the rest; every BKV_LEAF_RESTART-th one is whole and
 * listed at the end of the page, so that a search begins near its goal. Pure functions.
 *
 * A page is made (begin, add, end), then sealed for its address (encrypted if the store is, and
 * its checksum set), and opened when it is read. Searching an opened page still trusts no length in
 * it.
 */
#ifndef KVASIR_KV_BLOBKV_LEAF_H
#define KVASIR_KV_BLOBKV_LEAF_H

#include "kv/drivers/blobkv/codec.h"
#include "kv/drivers/blobkv/format.h"
#include "kv/drivers/blobkv/place.h"

#define BKV_LEAF_RESTART 16u

struct bkv_leaf_head {
    le32 crc;            /*  0  bkv_crc() of the rest of the page */
    le32 magic;          /*  4  BKV_LEAF_MAGIC */
    uint8_t seal[28];    /*  8  nonce and tag when encrypted (codec.h), else zero */
    uint8_t flags;       /* 36  BKV_F_SEALED or 0: encrypted from here on */
    uint8_t rsvd[3];     /* 37  0 */
    le64 number;         /* 40  of the tree it was made for: one more for each merge */
    le16 nentries;       /* 48  from 1 */
    le16 nrestarts;      /* 50  one per BKV_LEAF_RESTART entries begun */
    le16 end;            /* 52  of the entries; zeroes from there to the restarts */
    le16 rsvd2;          /* 54  0 */
    uint8_t entries[];   /* 56 */
};
static_assert(sizeof(struct bkv_leaf_head) == 56, "leaf head");

/*
 * An entry: varint shared, varint rest, rest bytes of the key, flags, varint address / 16, varint
 * record length / 16, varint number; then varint value length unless the flags tell it. Flags: low
 * half: record length - 32 - key length - value length, where that is 0 to 15. After the entries,
 * up to the end of the page: le16 offsets of the whole keys, in order.
 */
#define BKV_ENTRY_LEN 0x10u   /* the value's length follows; the low half is 0 */
#define BKV_ENTRY_LARGE 0x20u /* a LARGE record */

struct bkv_leaf_build {
    uint8_t *page;
    unsigned nentries;
    unsigned nrestarts;
    uint32_t end;
    uint32_t limit; /* bytes of the page to fill: begin sets all of it */
    uint32_t last_len;
    uint8_t last[BKV_KEY_MAX];
    uint16_t restart[64]; /* an entry has 7 bytes at least */
};

void bkv_leaf_begin(struct bkv_leaf_build *b, uint8_t *page);
/** Adds a key: 1; 0 it does not fit (the first one always does); -EBADMSG it is not above all that
 * are there. */
int bkv_leaf_add(struct bkv_leaf_build *b, struct bytes key, const struct bkv_place *place);
/** Bytes in use. */
static inline uint32_t bkv_leaf_used(const struct bkv_leaf_build *b)
{
    return b->end + 2 * b->nrestarts;
}
/** Completes the page, all but its seal. */
void bkv_leaf_end(struct bkv_leaf_build *b, uint64_t number);

/** Makes the page one for `addr` in life `gen`. Returns 0 and its checksum, or -EIO (encryption
 * failed). */
int bkv_leaf_seal(struct bkv_codec *codec, uint8_t *page, uint64_t addr, uint32_t gen,
                  uint32_t *out_crc);
/** Checks what was read from `addr`, that its checksum is `crc`, and decrypts it in place. 0;
 * -EBADMSG; -EACCES it is encrypted and there is no key. With `scratch` (BKV_KEY_MAX bytes) each
 * entry is looked at, too, and that keys ascend, for who goes through all of them; else that is
 * left to the search, and the checksum is what vouches for it. */
int bkv_leaf_open(struct bkv_codec *codec, uint8_t *page, uint64_t addr, uint32_t gen,
                  uint32_t crc, uint8_t *scratch);

static inline unsigned bkv_leaf_count(const uint8_t *page)
{
    return le16_get(((const struct bkv_leaf_head *)page)->nentries);
}

/** 0; -ENOENT; -EBADMSG. Of an opened page. */
int bkv_leaf_find(const uint8_t *page, struct bytes key, struct bkv_place *out);

/** Walks an opened page. The page has to stay. */
struct bkv_leaf_iter {
    const uint8_t *page;
    uint32_t at;
    uint32_t end;
    unsigned left;
    uint32_t key_len;
    uint8_t *key; /* the caller's, BKV_KEY_MAX bytes */
};
void bkv_leaf_first(struct bkv_leaf_iter *it, const uint8_t *page, uint8_t *key_buf);
/** 1: it->key, it->key_len and *out; 0: the end; -EBADMSG. */
int bkv_leaf_next(struct bkv_leaf_iter *it, struct bkv_place *out);
/**
 * Walks on from a key that has `prefix`, as long as keys have it, are below `limit` (none: ptr
 * NULL) and fit into buf[*used, max), where they go in the form of KV_LIST (le16 length, key).
 * Returns how many those are, or -EBADMSG. Their places are passed over.
 */
int bkv_leaf_run(struct bkv_leaf_iter *it, struct bytes prefix, struct bytes limit, uint8_t *buf,
                 size_t max, size_t *used);
/** So that the next one is the first >= key (after: > key). 0 or -EBADMSG. */
int bkv_leaf_seek(struct bkv_leaf_iter *it, struct bytes key, bool after);

/* Numbers of seven bits a byte, low ones first, as leaves and fences have them. */
#define BKV_VARINT_MAX 10u
static inline uint8_t *bkv_varint_put(uint8_t *p, uint64_t v)
{
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}
/** The byte after it; NULL: it does not end before `end`, or is none. */
static inline const uint8_t *bkv_varint_get(const uint8_t *p, const uint8_t *end, uint64_t *out)
{
    uint64_t v = 0;

    if (LIKELY(p < end && *p < 0x80)) {
        *out = *p;
        return p + 1;
    }
    for (unsigned shift = 0; p < end && shift < 64; shift += 7) {
        uint8_t b = *p++;

        if (shift == 63 && b > 1)
            return NULL;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            *out = v;
            return p;
        }
    }
    return NULL;
}

#endif
