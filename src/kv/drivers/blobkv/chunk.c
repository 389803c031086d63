/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/chunk.h"

#include "base/must.h"

#define HEAD_BYTES ((uint32_t)sizeof(struct bkv_chunk_head))
/* The part of the head that seals authenticate: data_len to offset. */
#define AAD_FROM 8u
#define AAD_BYTES (HEAD_BYTES - AAD_FROM)

static bool is_sealed(const struct bkv_chunk_head *head)
{
    return (head->flags & BKV_F_SEALED) != 0;
}

static uint32_t units_of(const struct bkv_chunk_head *head)
{
    return bkv_units(le32_get(head->data_len));
}

/* Where the key is, or its nonce. */
static uint32_t key_off(const struct bkv_chunk_head *head)
{
    return units_of(head) * (4 + (is_sealed(head) ? BKV_SEAL_BYTES : 0));
}

/* Without the padding. */
static uint32_t used_bytes(const struct bkv_chunk_head *head)
{
    return HEAD_BYTES + key_off(head) + le16_get(head->key_len) +
           (is_sealed(head) ? BKV_SEAL_BYTES : 0);
}

static uint32_t head_crc(const struct bkv_chunk_head *head, uint64_t addr, uint32_t gen)
{
    return bkv_crc(addr, gen, &head->magic, used_bytes(head) - sizeof(head->crc));
}

/* What is authenticated with the key (unit: NULL) or a unit. */
static struct bytes aad_of(const struct bkv_chunk_head *head, const uint32_t *unit, uint8_t *buf)
{
    memcpy(buf, (const uint8_t *)head + AAD_FROM, AAD_BYTES);
    if (unit == NULL)
        return bytes_make(buf, AAD_BYTES);
    le32_put(buf + AAD_BYTES, *unit);
    return bytes_make(buf, AAD_BYTES + 4);
}

void bkv_chunk_begin(struct bkv_chunk_head *head, uint8_t flags, uint32_t data_len,
                     uint32_t key_len, uint64_t value_id, uint64_t offset)
{
    must(data_len >= 1 && data_len <= BKV_CHUNK_MAX);
    must(key_len >= 1 && key_len <= BKV_KEY_MAX);
    *head = (struct bkv_chunk_head){
        .magic = le32_make(BKV_CHUNK_MAGIC),
        .data_len = le32_make(data_len),
        .key_len = le16_make((uint16_t)key_len),
        .flags = flags,
        .value_id = le64_make(value_id),
        .offset = le64_make(offset),
    };
}

uint8_t *bkv_chunk_crc_at(struct bkv_chunk_head *head, uint32_t unit)
{
    return head->data + 4 * unit;
}

uint8_t *bkv_chunk_seal_at(struct bkv_chunk_head *head, uint32_t unit)
{
    return head->data + 4 * units_of(head) + BKV_SEAL_BYTES * unit;
}

int bkv_chunk_seal(struct bkv_codec *codec, struct bkv_chunk_head *head, uint8_t *data)
{
    uint32_t data_len = le32_get(head->data_len);
    uint8_t aad[AAD_BYTES + 4];

    if (!is_sealed(head))
        return 0;
    for (uint32_t i = 0; i < units_of(head); i++) {
        uint8_t *seal = bkv_chunk_seal_at(head, i);
        int rc = bkv_codec_seal(codec, aad_of(head, &i, aad), data + i * BKV_UNIT_BYTES,
                                bkv_unit_len(data_len, i), seal, seal + BKV_NONCE_BYTES);

        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Goes through iovecs once, unit by unit. */
struct walk {
    const struct iovec *iov;
    unsigned iovcnt;
    size_t at; /* in iov[0] */
};

static uint32_t walk_crc(struct walk *w, uint64_t addr, uint32_t gen, uint32_t len)
{
    uint32_t crc = bkv_crc(addr, gen, NULL, 0);

    while (len > 0) {
        size_t n;

        must(w->iovcnt > 0);
        n = MIN(len, w->iov->iov_len - w->at);
        crc = crc32c(crc, (const uint8_t *)w->iov->iov_base + w->at, n);
        w->at += n;
        len -= (uint32_t)n;
        if (w->at == w->iov->iov_len) {
            w->iov++;
            w->iovcnt--;
            w->at = 0;
        }
    }
    return crc;
}

void bkv_chunk_sum(struct bkv_chunk_head *head, uint64_t addr, uint32_t gen, uint32_t head_len,
                   const struct iovec *iov, unsigned iovcnt)
{
    uint32_t data_len = le32_get(head->data_len);
    struct walk w = {.iov = iov, .iovcnt = iovcnt};

    for (uint32_t i = 0; i < units_of(head); i++)
        le32_put(bkv_chunk_crc_at(head, i), walk_crc(&w, addr + head_len + i * BKV_UNIT_BYTES, gen,
                                                     bkv_unit_len(data_len, i)));
}

int bkv_chunk_finish(struct bkv_codec *codec, struct bkv_chunk_head *head, struct bytes key,
                     uint64_t addr, uint32_t gen, uint32_t head_len, uint32_t *out_crc)
{
    uint8_t *at = head->data + key_off(head);
    uint8_t aad[AAD_BYTES + 4];
    uint32_t used = used_bytes(head);

    must(key.len == le16_get(head->key_len) && used <= head_len);
    if (is_sealed(head)) {
        int rc;

        memcpy(at + BKV_NONCE_BYTES, key.ptr, key.len);
        rc = bkv_codec_seal(codec, aad_of(head, NULL, aad), at + BKV_NONCE_BYTES, key.len, at,
                            at + BKV_NONCE_BYTES + key.len);
        if (rc < 0)
            return rc;
    } else {
        memcpy(at, key.ptr, key.len);
    }
    memset((uint8_t *)head + used, 0, head_len - used);
    *out_crc = head_crc(head, addr, gen);
    head->crc = le32_make(*out_crc);
    return 0;
}

uint32_t bkv_chunk_moved(struct bkv_chunk_head *head, uint64_t addr, uint32_t gen,
                         uint32_t head_len, const uint8_t *data)
{
    struct iovec iov = {(void *)(uintptr_t)data, le32_get(head->data_len)};
    uint32_t crc;

    bkv_chunk_sum(head, addr, gen, head_len, &iov, 1);
    crc = head_crc(head, addr, gen);
    head->crc = le32_make(crc);
    return crc;
}

int bkv_chunk_head_check(const uint8_t *buf, size_t len, uint64_t addr, uint32_t gen,
                         uint32_t *out_need)
{
    const struct bkv_chunk_head *head = (const struct bkv_chunk_head *)buf;
    uint32_t used;

    *out_need = HEAD_BYTES;
    if (len < HEAD_BYTES)
        return -E2BIG;
    if (le32_get(head->magic) != BKV_CHUNK_MAGIC || le32_get(head->data_len) == 0 ||
        le32_get(head->data_len) > BKV_CHUNK_MAX || le16_get(head->key_len) == 0 ||
        le16_get(head->key_len) > BKV_KEY_MAX || (head->flags & ~BKV_F_KNOWN) != 0 ||
        head->rsvd != 0)
        return -EBADMSG;
    used = used_bytes(head);
    *out_need = used;
    if (used > len)
        return -E2BIG;
    return head_crc(head, addr, gen) == le32_get(head->crc) ? (int)used : -EBADMSG;
}

int bkv_chunk_key(struct bkv_codec *codec, const struct bkv_chunk_head *head, uint8_t *scratch,
                  struct bytes *out_key)
{
    const uint8_t *at = head->data + key_off(head);
    uint32_t key_len = le16_get(head->key_len);
    uint8_t aad[AAD_BYTES + 4];
    int rc;

    if (!is_sealed(head)) {
        *out_key = bytes_make(at, key_len);
        return 0;
    }
    rc = bkv_codec_unseal(codec, aad_of(head, NULL, aad), at + BKV_NONCE_BYTES, key_len, at,
                          at + BKV_NONCE_BYTES + key_len, scratch);
    if (rc == 0)
        *out_key = bytes_make(scratch, key_len);
    return rc;
}

int bkv_chunk_units_check(const struct bkv_chunk_head *head, uint64_t addr, uint32_t gen,
                          uint32_t head_len, uint32_t first, uint32_t n, const struct iovec *iov,
                          unsigned iovcnt)
{
    uint32_t data_len = le32_get(head->data_len);
    struct walk w = {.iov = iov, .iovcnt = iovcnt};

    for (uint32_t i = first; i < first + n; i++)
        if (walk_crc(&w, addr + head_len + i * BKV_UNIT_BYTES, gen, bkv_unit_len(data_len, i)) !=
            le32_at(head->data + 4 * i))
            return -EBADMSG;
    return 0;
}

int bkv_chunk_units_open(struct bkv_codec *codec, const struct bkv_chunk_head *head, uint32_t first,
                         uint32_t n, uint8_t *data)
{
    uint32_t data_len = le32_get(head->data_len);
    uint8_t aad[AAD_BYTES + 4];

    if (!is_sealed(head))
        return 0;
    for (uint32_t i = first; i < first + n; i++) {
        const uint8_t *seal = head->data + 4 * units_of(head) + BKV_SEAL_BYTES * i;
        uint8_t *unit = data + (i - first) * BKV_UNIT_BYTES;
        int rc = bkv_codec_unseal(codec, aad_of(head, &i, aad), unit, bkv_unit_len(data_len, i),
                                  seal, seal + BKV_NONCE_BYTES, unit);

        if (rc < 0)
            return rc;
    }
    return 0;
}
