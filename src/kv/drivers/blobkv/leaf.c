/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/leaf.h"

#include "base/must.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define HEAD_BYTES ((uint32_t)sizeof(struct bkv_leaf_head))
#define SEALED_FROM ((uint32_t)offsetof(struct bkv_leaf_head, number))
/* All of an entry but its key. */
#define ENTRY_EXTRA (5 * BKV_VARINT_MAX + 1)

/* --- making ----------------------------------------------------------------------------------- */

void bkv_leaf_begin(struct bkv_leaf_build *b, uint8_t *page)
{
    b->page = page;
    b->nentries = 0;
    b->nrestarts = 0;
    b->end = HEAD_BYTES;
    b->limit = BKV_PAGE_BYTES;
    b->last_len = 0;
}

static uint32_t shared_len(const struct bkv_leaf_build *b, struct bytes key)
{
    uint32_t max = (uint32_t)MIN(b->last_len, key.len);
    uint32_t n = 0;

    while (n < max && b->last[n] == key.ptr[n])
        n++;
    return n;
}

/* What follows the key in an entry. */
static uint8_t *place_encode(uint8_t *p, uint32_t key_len, const struct bkv_place *place)
{
    uint64_t rest = (uint64_t)place->rec_len - sizeof(struct bkv_record) - key_len;
    bool told = place->rec_len >= sizeof(struct bkv_record) + key_len && place->value_len <= rest &&
                rest - place->value_len < 16;
    uint8_t flags = place->type == BKV_LARGE_VALUE ? BKV_ENTRY_LARGE : 0;

    *p++ = flags | (uint8_t)(told ? rest - place->value_len : BKV_ENTRY_LEN);
    p = bkv_varint_put(p, place->addr / BKV_ALIGN);
    p = bkv_varint_put(p, place->rec_len / BKV_ALIGN);
    p = bkv_varint_put(p, place->seq);
    return told ? p : bkv_varint_put(p, place->value_len);
}

int bkv_leaf_add(struct bkv_leaf_build *b, struct bytes key, const struct bkv_place *place)
{
    bool whole = b->nentries % BKV_LEAF_RESTART == 0;
    uint32_t shared = shared_len(b, key);
    uint8_t lens[2 * BKV_VARINT_MAX], tail[ENTRY_EXTRA];
    uint32_t lens_bytes, tail_bytes, bytes;
    uint8_t *p;

    must(key.len >= 1);
    must(key.len <= BKV_KEY_MAX);
    if (b->nentries > 0 &&
        (shared == key.len || (shared < b->last_len && key.ptr[shared] < b->last[shared])))
        return -EBADMSG;
    if (whole)
        shared = 0;
    p = bkv_varint_put(bkv_varint_put(lens, shared), key.len - shared);
    lens_bytes = (uint32_t)(p - lens);
    tail_bytes = (uint32_t)(place_encode(tail, (uint32_t)key.len, place) - tail);
    bytes = lens_bytes + (uint32_t)key.len - shared + tail_bytes;
    if (b->end + bytes + 2 * (b->nrestarts + whole) > (b->nentries ? b->limit : BKV_PAGE_BYTES))
        return 0;
    must(b->nrestarts + whole <= ARRAY_LEN(b->restart));
    if (whole)
        b->restart[b->nrestarts++] = (uint16_t)b->end;
    p = b->page + b->end;
    memcpy(p, lens, lens_bytes);
    memcpy(p + lens_bytes, key.ptr + shared, key.len - shared);
    memcpy(p + lens_bytes + key.len - shared, tail, tail_bytes);
    b->end += bytes;
    b->nentries++;
    memcpy(b->last + shared, key.ptr + shared, key.len - shared);
    b->last_len = (uint32_t)key.len;
    return 1;
}

void bkv_leaf_end(struct bkv_leaf_build *b, uint64_t number)
{
    struct bkv_leaf_head *h = (struct bkv_leaf_head *)b->page;
    uint8_t *table = b->page + BKV_PAGE_BYTES - 2 * b->nrestarts;

    must(b->nentries > 0);
    memset(h, 0, sizeof(*h));
    h->magic = le32_make(BKV_LEAF_MAGIC);
    h->number = le64_make(number);
    h->nentries = le16_make((uint16_t)b->nentries);
    h->nrestarts = le16_make((uint16_t)b->nrestarts);
    h->end = le16_make((uint16_t)b->end);
    memset(b->page + b->end, 0, (size_t)(table - (b->page + b->end)));
    for (unsigned i = 0; i < b->nrestarts; i++)
        le16_put(table + 2 * i, b->restart[i]);
}

int bkv_leaf_seal(struct bkv_codec *codec, uint8_t *page, uint64_t addr, uint32_t gen,
                  uint32_t *out_crc)
{
    struct bkv_leaf_head *h = (struct bkv_leaf_head *)page;
    int rc;

    if (codec != NULL && bkv_codec_seals(codec)) {
        rc = bkv_codec_seal_page(codec, addr, gen, page + SEALED_FROM, BKV_PAGE_BYTES - SEALED_FROM,
                                 h->seal);
        if (rc < 0)
            return rc;
        h->flags = BKV_F_SEALED;
    }
    *out_crc = bkv_crc(addr, gen, page + 4, BKV_PAGE_BYTES - 4);
    h->crc = le32_make(*out_crc);
    return 0;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* One entry as it stands in the page. */
struct raw {
    uint32_t shared, rest;
    const uint8_t *key;
};

/* The lengths and the rest of the key; the byte after, or NULL. */
static inline const uint8_t *key_decode(const uint8_t *p, const uint8_t *end, struct raw *out)
{
    uint64_t shared, rest;

    p = bkv_varint_get(p, end, &shared);
    if (p == NULL)
        return NULL;
    p = bkv_varint_get(p, end, &rest);
    if (p == NULL || rest > (uint64_t)(end - p) || shared > BKV_KEY_MAX ||
        shared + rest > BKV_KEY_MAX || shared + rest == 0)
        return NULL;
    *out = (struct raw){(uint32_t)shared, (uint32_t)rest, p};
    return p + rest;
}

static const uint8_t *place_decode(const uint8_t *p, const uint8_t *end, uint32_t key_len,
                                   struct bkv_place *out)
{
    uint64_t addr, len, seq, value_len, rest;
    uint8_t flags;

    if (p == end)
        return NULL;
    flags = *p++;
    p = bkv_varint_get(p, end, &addr);
    p = p == NULL ? NULL : bkv_varint_get(p, end, &len);
    p = p == NULL ? NULL : bkv_varint_get(p, end, &seq);
    if (p == NULL || addr == 0 || addr >= 1ull << (BKV_ADDR_BITS - 4) || len == 0 ||
        len > UINT32_MAX / BKV_ALIGN || seq == 0)
        return NULL;
    if ((flags & BKV_ENTRY_LEN) != 0) {
        p = bkv_varint_get(p, end, &value_len);
        if (p == NULL || (flags & 0x0f) != 0)
            return NULL;
    } else {
        rest = len * BKV_ALIGN - sizeof(struct bkv_record) - key_len;
        if (len * BKV_ALIGN < sizeof(struct bkv_record) + key_len + (flags & 0x0f))
            return NULL;
        value_len = rest - (flags & 0x0f);
    }
    if ((flags & ~(BKV_ENTRY_LEN | BKV_ENTRY_LARGE | 0x0fu)) != 0)
        return NULL;
    *out = (struct bkv_place){
        .addr = addr * BKV_ALIGN,
        .seq = seq,
        .value_len = value_len,
        .rec_len = (uint32_t)len * BKV_ALIGN,
        .type = (flags & BKV_ENTRY_LARGE) != 0 ? BKV_LARGE_VALUE : BKV_VALUE,
    };
    return p;
}

static inline const uint8_t *place_skip(const uint8_t *p, const uint8_t *end)
{
    unsigned n;

    if (p == end)
        return NULL;
    n = (*p++ & BKV_ENTRY_LEN) != 0 ? 4 : 3;
#ifdef __SSE2__
    /* Where numbers end, of 16 bytes at once: usually all of a place. */
    if (LIKELY(end - p >= 16)) {
        unsigned ends = ~(unsigned)_mm_movemask_epi8(_mm_loadu_si128((const __m128i *)p)) & 0xffff;

        ends &= ends - 1;
        ends &= ends - 1;
        if (UNLIKELY(n == 4))
            ends &= ends - 1;
        if (LIKELY(ends != 0))
            return p + __builtin_ctz(ends) + 1;
    }
#endif
    while (n > 0 && p < end)
        n -= *p++ < 0x80;
    return n == 0 ? p : NULL;
}

static uint16_t restart_at(const uint8_t *page, unsigned i)
{
    const struct bkv_leaf_head *h = (const struct bkv_leaf_head *)page;

    return le16_at(page + BKV_PAGE_BYTES - 2 * (le16_get(h->nrestarts) - i));
}

/* Walks all entries: keys ascend, places are sound, whole keys are where the table says. */
static int check_entries(const uint8_t *page, uint8_t *last)
{
    const struct bkv_leaf_head *h = (const struct bkv_leaf_head *)page;
    const uint8_t *p = page + HEAD_BYTES, *end = page + le16_get(h->end);
    const unsigned n = le16_get(h->nentries);
    uint32_t last_len = 0;

    for (unsigned i = 0; i < n; i++) {
        bool whole = i % BKV_LEAF_RESTART == 0;
        struct bkv_place place;
        struct raw raw;
        uint32_t at = (uint32_t)(p - page);
        int cmp;

        p = key_decode(p, end, &raw);
        if (p == NULL || raw.shared > last_len || (whole && raw.shared != 0) ||
            (whole && restart_at(page, i / BKV_LEAF_RESTART) != at))
            return -EBADMSG;
        cmp = bytes_cmp(bytes_make(raw.key, raw.rest),
                        bytes_make(last + raw.shared, last_len - raw.shared));
        if (i > 0 && cmp <= 0)
            return -EBADMSG;
        /* Searches rely on it that an entry shares all it can. */
        if (!whole && raw.shared < last_len && raw.key[0] == last[raw.shared])
            return -EBADMSG;
        memcpy(last + raw.shared, raw.key, raw.rest);
        last_len = raw.shared + raw.rest;
        p = place_decode(p, end, last_len, &place);
        if (p == NULL)
            return -EBADMSG;
    }
    return p == end ? 0 : -EBADMSG;
}

int bkv_leaf_open(struct bkv_codec *codec, uint8_t *page, uint64_t addr, uint32_t gen, uint32_t crc,
                  uint8_t *scratch)
{
    const struct bkv_leaf_head *h = (const struct bkv_leaf_head *)page;
    unsigned n, nrestarts, end;
    int rc;

    if (le32_get(h->crc) != crc || le32_get(h->magic) != BKV_LEAF_MAGIC ||
        bkv_crc(addr, gen, page + 4, BKV_PAGE_BYTES - 4) != crc ||
        !bytes_are_zero(h->rsvd, sizeof(h->rsvd)))
        return -EBADMSG;
    if (h->flags == BKV_F_SEALED) {
        if (codec == NULL)
            return -EACCES;
        rc = bkv_codec_open_page(codec, addr, gen, page + SEALED_FROM, BKV_PAGE_BYTES - SEALED_FROM,
                                 h->seal);
        if (rc < 0)
            return rc;
    } else if (h->flags != 0 || !bytes_are_zero(h->seal, sizeof(h->seal))) {
        return -EBADMSG;
    } else if (codec != NULL && bkv_codec_seals(codec)) {
        return -EBADMSG; /* an encrypted store has no page that is not */
    }
    n = le16_get(h->nentries);
    nrestarts = le16_get(h->nrestarts);
    end = le16_get(h->end);
    if (n == 0 || nrestarts != (n + BKV_LEAF_RESTART - 1) / BKV_LEAF_RESTART || end < HEAD_BYTES ||
        end + 2 * nrestarts > BKV_PAGE_BYTES || le16_get(h->rsvd2) != 0)
        return -EBADMSG;
    if (!bytes_are_zero(page + end, BKV_PAGE_BYTES - 2 * nrestarts - end))
        return -EBADMSG;
    return scratch == NULL ? 0 : check_entries(page, scratch);
}

/* --- searching -------------------------------------------------------------------------------- */

/* The last whole key <= key: its number; 0 when all are above. -EBADMSG. */
static int restart_before(const uint8_t *page, const uint8_t *end, struct bytes key)
{
    const struct bkv_leaf_head *h = (const struct bkv_leaf_head *)page;
    int lo = 0, hi = le16_get(h->nrestarts);

    while (hi - lo > 1) {
        int mid = (lo + hi) / 2;
        uint16_t at = restart_at(page, (unsigned)mid);
        struct raw raw;

        if (page + at >= end || key_decode(page + at, end, &raw) == NULL || raw.shared != 0)
            return -EBADMSG;
        if (bytes_cmp(bytes_make(raw.key, raw.rest), key) <= 0)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/*
 * The first entry >= key from the whole key on that is before it. `same` is how many bytes of `key`
 * the entry before has, which is below `key`: an entry that shares more than that is below, too,
 * one that shares less is above.
 */
int bkv_leaf_find(const uint8_t *page, struct bytes key, struct bkv_place *out)
{
    const uint8_t *end = page + le16_get(((const struct bkv_leaf_head *)page)->end);
    int restart = restart_before(page, end, key);
    const uint8_t *p;
    size_t same = 0;

    if (restart < 0)
        return restart;
    p = page + restart_at(page, (unsigned)restart);
    while (p < end) {
        struct raw raw;
        size_t max, n = 0;

        p = key_decode(p, end, &raw);
        if (p == NULL)
            return -EBADMSG;
        if (raw.shared < same)
            return -ENOENT;
        if (raw.shared == same) {
            max = MIN(raw.rest, key.len - same);
            while (n < max && raw.key[n] == key.ptr[same + n])
                n++;
            if (n == raw.rest && n == key.len - same) {
                p = place_decode(p, end, (uint32_t)key.len, out);
                return p == NULL ? -EBADMSG : 0;
            }
            if (n == key.len - same || (n < raw.rest && raw.key[n] > key.ptr[same + n]))
                return -ENOENT;
            same += n;
        }
        p = place_skip(p, end);
        if (p == NULL)
            return -EBADMSG;
    }
    return -ENOENT;
}

void bkv_leaf_first(struct bkv_leaf_iter *it, const uint8_t *page, uint8_t *key_buf)
{
    const struct bkv_leaf_head *h = (const struct bkv_leaf_head *)page;

    *it = (struct bkv_leaf_iter){
        .page = page,
        .at = HEAD_BYTES,
        .end = le16_get(h->end),
        .left = le16_get(h->nentries),
        .key = key_buf,
    };
}

int bkv_leaf_next(struct bkv_leaf_iter *it, struct bkv_place *out)
{
    const uint8_t *p = it->page + it->at, *end = it->page + it->end;
    struct raw raw;

    if (it->left == 0)
        return 0;
    p = key_decode(p, end, &raw);
    if (p == NULL || raw.shared > it->key_len)
        return -EBADMSG;
    memcpy(it->key + raw.shared, raw.key, raw.rest);
    it->key_len = raw.shared + raw.rest;
    p = place_decode(p, end, it->key_len, out);
    if (p == NULL)
        return -EBADMSG;
    it->at = (uint32_t)(p - it->page);
    it->left--;
    return 1;
}

/* `slack`: 16 bytes may be read and written whatever n is, which is faster than asking. */
static void copy_short(uint8_t *to, const uint8_t *from, size_t n, bool slack)
{
    uint64_t word[2];

    if (LIKELY(slack && n <= sizeof(word))) {
        memcpy(word, from, sizeof(word));
        memcpy(to, word, sizeof(word));
    } else {
        memcpy(to, from, n);
    }
}

int bkv_leaf_run(struct bkv_leaf_iter *it, struct bytes prefix, struct bytes limit, uint8_t *buf,
                 size_t max, size_t *used)
{
    const uint8_t *p = it->page + it->at, *end = it->page + it->end, *last = it->key;
    uint32_t last_len = it->key_len;
    size_t at = *used;
    int n = 0;

    for (; it->left > 0; it->left--, n++) {
        const uint8_t *next;
        uint8_t *key = buf + at + 2;
        struct raw raw;
        uint32_t len;
        bool slack;

        next = key_decode(p, end, &raw);
        if (next == NULL || raw.shared > last_len)
            return -EBADMSG;
        len = raw.shared + raw.rest;
        if (max - at < len + 2)
            break;
        slack = max - at >= len + 2 + 16 && raw.key <= it->page + BKV_PAGE_BYTES - 16;
        copy_short(key, last, raw.shared, slack);
        copy_short(key + raw.shared, raw.key, raw.rest, slack);
        /* A key that shares that much with one that has the prefix has it, too. */
        if (raw.shared < prefix.len && !bytes_has_prefix(bytes_make(key, len), prefix))
            break;
        if (limit.ptr != NULL && bytes_cmp(bytes_make(key, len), limit) >= 0)
            break;
        p = place_skip(next, end);
        if (p == NULL)
            return -EBADMSG;
        le16_put(buf + at, (uint16_t)len);
        last = key;
        last_len = len;
        at += len + 2;
        it->at = (uint32_t)(p - it->page);
    }
    if (n > 0)
        memcpy(it->key, last, last_len);
    it->key_len = last_len;
    *used = at;
    return n;
}

int bkv_leaf_seek(struct bkv_leaf_iter *it, struct bytes key, bool after)
{
    int restart = restart_before(it->page, it->page + it->end, key);
    struct bkv_leaf_iter next;

    if (restart < 0)
        return restart;
    bkv_leaf_first(it, it->page, it->key);
    it->at = restart_at(it->page, (unsigned)restart);
    it->left -= MIN((unsigned)restart * BKV_LEAF_RESTART, it->left);
    next = *it;
    for (;;) {
        struct bkv_place place;
        int rc = bkv_leaf_next(&next, &place);
        int cmp;

        if (rc < 0)
            return rc;
        cmp = rc == 0 ? 1 : bytes_cmp(bytes_make(next.key, next.key_len), key);
        if (cmp > 0 || (cmp == 0 && !after))
            break;
        *it = next;
    }
    /* The key's bytes have been overwritten by the entry that comes; it brings them again, but for
     * what it shares with the one before, which is the same in both. */
    return 0;
}
