/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fences as bytes of a checkpoint: a head, then one entry a leaf: varint shared and varint rest as
 * in leaves, the rest of the separator, how far its address is from the end of the leaf before
 * (zigzag varint, in 512 bytes: 0 where leaves were written in one run), le32 checksum.
 */
#include "kv/drivers/blobkv/fence.h"
#include "kv/drivers/blobkv/leaf.h"

#include "base/must.h"

#define FENCES_MAGIC 0x434e4642u /* "BFNC" */
#define ADDR_UNIT 512u
#define ENTRY_MAX (BKV_KEY_MAX + 2 * BKV_VARINT_MAX + BKV_VARINT_MAX + 4)

struct fences_head {
    le32 magic;   /*  0 */
    le32 rsvd;    /*  4  0 */
    le64 number;  /*  8  of the tree: as the leaves it was made with */
    le64 nleaves; /* 16 */
    le64 nkeys;   /* 24 */
};
static_assert(sizeof(struct fences_head) == 32, "fences head");

/* A number that is small when it is near 0, on either side. */
static uint64_t zigzag(int64_t v)
{
    return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}

static int64_t unzigzag(uint64_t v)
{
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

/* --- encoding --------------------------------------------------------------------------------- */

/* One entry, all but the separator's bytes. */
struct entry {
    uint32_t shared, rest;
    uint32_t nlens, ntail;
    uint8_t lens[2 * BKV_VARINT_MAX];
    uint8_t tail[BKV_VARINT_MAX + 4];
};

static uint32_t entry_bytes(const struct entry *e)
{
    return e->nlens + e->rest + e->ntail;
}

/* `before`: the block and index of the leaf before, NULL for the first leaf. */
static void entry_make(const struct bkv_fences *b, uint32_t idx, const struct bkv_fences *before,
                       uint32_t before_idx, struct entry *e)
{
    uint32_t len = bkv_fence_key_len(b, idx);
    uint32_t max = before == NULL ? 0 : MIN(len, bkv_fence_key_len(before, before_idx));
    uint64_t addr = bkv_fence_addr(&b->slot[idx]), from = 0;
    uint8_t *p;

    if (before != NULL)
        from = bkv_fence_addr(&before->slot[before_idx]) + BKV_PAGE_BYTES;
    e->shared = 0;
    while (e->shared < max && bkv_fence_key_byte(b, idx, e->shared) ==
                                  bkv_fence_key_byte(before, before_idx, e->shared))
        e->shared++;
    e->rest = len - e->shared;
    p = bkv_varint_put(bkv_varint_put(e->lens, e->shared), e->rest);
    e->nlens = (uint32_t)(p - e->lens);
    p = bkv_varint_put(e->tail, zigzag((int64_t)(addr / ADDR_UNIT) - (int64_t)(from / ADDR_UNIT)));
    le32_put(p, b->slot[idx].crc);
    e->ntail = (uint32_t)(p + 4 - e->tail);
}

static void entry_put(const struct entry *e, const struct bkv_fences *b, uint32_t idx, uint8_t *out)
{
    memcpy(out, e->lens, e->nlens);
    out += e->nlens;
    for (uint32_t i = e->shared; i < e->shared + e->rest; i++)
        *out++ = bkv_fence_key_byte(b, idx, i);
    memcpy(out, e->tail, e->ntail);
}

/* From *pos (0: nothing yet; 1 + leaf: that leaf comes next) until room is used up; with `out` NULL
 * only counts. */
static uint64_t encode(const struct bkv_tree *tree, uint64_t *pos, uint8_t *out, uint64_t room)
{
    struct bkv_fence_pos at, before = {0};
    uint64_t used = 0;

    if (*pos == 0) {
        const struct fences_head head = {
            .magic = le32_make(FENCES_MAGIC),
            .number = le64_make(tree->number),
            .nleaves = le64_make(tree->nleaves),
            .nkeys = le64_make(tree->nkeys),
        };

        if (out != NULL)
            memcpy(out, &head, sizeof(head));
        used = sizeof(head);
        *pos = 1;
    }
    if (*pos > tree->nleaves)
        return used;
    if (*pos > 1)
        before = bkv_fence_pos(tree, *pos - 2);
    at = bkv_fence_pos(tree, *pos - 1);
    do {
        const struct bkv_fences *b = tree->block[at.block];
        struct entry e;

        entry_make(b, at.idx, *pos > 1 ? tree->block[before.block] : NULL, before.idx, &e);
        if (entry_bytes(&e) > room - used)
            break;
        if (out != NULL)
            entry_put(&e, b, at.idx, out + used);
        used += entry_bytes(&e);
        before = at;
        ++*pos;
    } while (bkv_fence_next(tree, &at));
    return used;
}

size_t bkv_tree_encode(const struct bkv_tree *tree, uint64_t *pos, uint8_t *out, size_t room)
{
    must(room >= ENTRY_MAX);
    return encode(tree, pos, out, room);
}

uint64_t bkv_tree_encoded_bytes(const struct bkv_tree *tree)
{
    uint64_t pos = 0;

    return encode(tree, &pos, NULL, UINT64_MAX);
}

/* --- decoding --------------------------------------------------------------------------------- */

struct bkv_tree_decoder {
    struct bkv_tree_io *io;
    struct bkv_fence_build build;
    uint64_t number, nleaves, nkeys;
    uint64_t done; /* leaves */
    uint64_t addr; /* where the leaf before ends */
    bool has_head;
    int rc;
    uint32_t key_len;
    uint8_t key[BKV_KEY_MAX]; /* the separator before */
    uint32_t ncarry;
    uint8_t carry[ENTRY_MAX]; /* an entry of which not all has come yet */
};

struct bkv_tree_decoder *bkv_tree_decoder_new(struct bkv_tree_io *io)
{
    struct bkv_tree_decoder *d = calloc(1, sizeof(*d));

    if (d != NULL)
        d->io = io;
    return d;
}

static int head_decode(struct bkv_tree_decoder *d, const uint8_t *p)
{
    const struct fences_head *h = (const struct fences_head *)p;

    d->number = le64_get(h->number);
    d->nleaves = le64_get(h->nleaves);
    d->nkeys = le64_get(h->nkeys);
    /* An entry takes 7 bytes of its leaf at least, an address is below 2^48. */
    if (le32_get(h->magic) != FENCES_MAGIC || le32_get(h->rsvd) != 0 ||
        d->nleaves > (1ull << BKV_ADDR_BITS) / BKV_PAGE_BYTES || d->nkeys < d->nleaves ||
        d->nkeys > d->nleaves * (BKV_PAGE_BYTES / 7))
        return -EBADMSG;
    d->has_head = true;
    return (int)sizeof(*h);
}

/* One entry, or the head: bytes taken, 0 when not all of it is there, -EBADMSG. */
static int entry_decode(struct bkv_tree_decoder *d, const uint8_t *in, size_t len)
{
    const uint8_t *p = in, *end = in + len, *key;
    uint64_t shared, rest, delta;
    uint64_t addr;
    int short_rc = len < ENTRY_MAX ? 0 : -EBADMSG;

    if (!d->has_head)
        return len < sizeof(struct fences_head) ? 0 : head_decode(d, in);
    if (d->done == d->nleaves)
        return -EBADMSG;
    p = bkv_varint_get(p, end, &shared);
    p = p == NULL ? NULL : bkv_varint_get(p, end, &rest);
    if (p == NULL)
        return short_rc;
    if (shared > d->key_len || rest > BKV_KEY_MAX || shared + rest > BKV_KEY_MAX)
        return -EBADMSG;
    if (rest + 4 >= (uint64_t)(end - p))
        return short_rc;
    /* Above the one before; only the first may be empty. */
    if (d->done > 0 &&
        bytes_cmp(bytes_make(p, rest), bytes_make(d->key + shared, d->key_len - shared)) <= 0)
        return -EBADMSG;
    key = p;
    p = bkv_varint_get(p + rest, end, &delta);
    if (p == NULL || end - p < 4)
        return short_rc;
    addr = d->addr + (uint64_t)unzigzag(delta) * ADDR_UNIT;
    if (addr == 0 || addr > (1ull << BKV_ADDR_BITS) - BKV_PAGE_BYTES)
        return -EBADMSG;
    memcpy(d->key + shared, key, rest);
    d->key_len = (uint32_t)(shared + rest);
    d->addr = addr + BKV_PAGE_BYTES;
    d->done++;
    if (bkv_fence_add(&d->build, bytes_make(d->key, d->key_len), addr, le32_at(p)) < 0)
        return -ENOMEM;
    return (int)(p + 4 - in);
}

/* With bytes carried over: fills up and takes one entry. Bytes taken from `in`, or an errno. */
static int carry_decode(struct bkv_tree_decoder *d, const uint8_t *in, size_t len)
{
    uint32_t had = d->ncarry;
    size_t n = MIN(len, sizeof(d->carry) - had);
    int rc;

    memcpy(d->carry + had, in, n);
    rc = entry_decode(d, d->carry, had + n);
    if (rc < 0)
        return rc;
    if (rc == 0) {
        must(n == len);
        d->ncarry += (uint32_t)n;
        return (int)n;
    }
    must((uint32_t)rc > had);
    d->ncarry = 0;
    return rc - (int)had;
}

int bkv_tree_decode(struct bkv_tree_decoder *d, const uint8_t *in, size_t len)
{
    while (d->rc == 0 && len > 0) {
        int rc = d->ncarry > 0 ? carry_decode(d, in, len) : entry_decode(d, in, len);

        if (rc < 0) {
            d->rc = rc;
        } else if (rc == 0) {
            memcpy(d->carry, in, len);
            d->ncarry = (uint32_t)len;
            return 0;
        } else {
            in += rc;
            len -= (size_t)rc;
        }
    }
    return d->rc;
}

int bkv_tree_decoded(struct bkv_tree_decoder *d, struct bkv_tree **out_tree)
{
    struct bkv_tree *tree = NULL;
    int rc;

    if (d == NULL)
        return -EBADMSG;
    rc = d->rc;
    if (rc == 0 && (!d->has_head || d->ncarry > 0 || d->done != d->nleaves))
        rc = -EBADMSG;
    if (out_tree != NULL && rc == 0) {
        tree = bkv_fence_tree(&d->build, d->io);
        rc = tree == NULL ? -ENOMEM : 0;
    }
    if (tree != NULL) {
        tree->number = d->number;
        tree->nkeys = d->nkeys;
        *out_tree = tree;
    }
    bkv_fence_discard(&d->build);
    free(d);
    return rc;
}
