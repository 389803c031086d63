/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/record.h"

#include "base/must.h"

#define HEAD_BYTES sizeof(struct bkv_record)
#define STORED_MAX (BKV_INLINE_MAX + BKV_CODEC_EXTRA)

/* Copies and checksums in steps of this size, so that the second pass finds the bytes in L1. */
#define STEP_BYTES 4096u

static uint32_t seed(uint64_t addr, uint32_t gen)
{
    uint8_t where[12];

    le64_put(where, addr);
    le32_put(where + 8, gen);
    return crc32c(0, where, sizeof(where));
}

/* Copies `len` bytes of the iovecs to dst and returns the checksum carried over them. */
static uint32_t copy_in(uint32_t crc, uint8_t *dst, const struct iovec *iov, size_t len)
{
    while (len > 0) {
        const uint8_t *src = iov->iov_base;
        size_t n = MIN(iov->iov_len, len);

        len -= n;
        while (n > 0) {
            size_t step = MIN(n, STEP_BYTES);

            memcpy(dst, src, step);
            crc = crc32c(crc, dst, step);
            dst += step;
            src += step;
            n -= step;
        }
        iov++;
    }
    return crc;
}

int bkv_record_encode(struct bkv_codec *codec, const struct bkv_record_in *in, uint64_t addr,
                      uint32_t gen, uint8_t *out, size_t room)
{
    struct bkv_record *head = (struct bkv_record *)out;
    uint32_t rec_len = bkv_record_len((uint32_t)in->key.len, in->value_bytes);
    size_t used = HEAD_BYTES + in->key.len + in->value_bytes;
    uint32_t crc;

    must(codec == NULL);
    must(in->key.len >= 1 && in->key.len <= BKV_KEY_MAX && in->value_bytes <= BKV_INLINE_MAX);
    must(iov_len(in->iov, in->iovcnt) >= in->value_bytes);
    if (rec_len > room)
        return -E2BIG;
    *head = (struct bkv_record){
        .key_hash = le32_make((uint32_t)in->hash),
        .stored_len = le32_make(in->value_bytes),
        .key_len = le16_make((uint16_t)in->key.len),
        .type = in->type,
        .value_len = le64_make(in->value_len),
        .seq = le64_make(in->seq),
    };
    memcpy(head->data, in->key.ptr, in->key.len);
    crc = crc32c(seed(addr, gen), out + sizeof(head->crc),
                 HEAD_BYTES - sizeof(head->crc) + in->key.len);
    crc = copy_in(crc, head->data + in->key.len, in->iov, in->value_bytes);
    head->crc = le32_make(crc);
    memset(out + used, 0, rec_len - used);
    return (int)rec_len;
}

/* What must hold of any head, whatever its checksum says. */
static bool head_is_plausible(const struct bkv_record *head)
{
    uint32_t key_len = le16_get(head->key_len);

    return key_len >= 1 && key_len <= BKV_KEY_MAX && le32_get(head->stored_len) <= STORED_MAX &&
           head->type >= BKV_VALUE && head->type <= BKV_DELETE && head->flags == 0;
}

/* What must hold of a head that we have written: only a bug or a forger gets past the checksum. */
static bool head_is_consistent(const struct bkv_record *head)
{
    uint32_t stored = le32_get(head->stored_len);

    switch (head->type) {
    case BKV_VALUE:
        return le64_get(head->value_len) == stored;
    case BKV_DELETE:
        return stored == 0;
    default:
        return true;
    }
}

int bkv_record_decode(const uint8_t *buf, size_t len, uint64_t addr, uint32_t gen,
                      struct bkv_record_out *out, uint32_t *out_need)
{
    const struct bkv_record *head = (const struct bkv_record *)buf;
    uint32_t rec_len, used;

    if (len < HEAD_BYTES) {
        if (out_need != NULL)
            *out_need = HEAD_BYTES;
        return -E2BIG;
    }
    if (!head_is_plausible(head))
        return -EBADMSG;
    rec_len = bkv_record_len(le16_get(head->key_len), le32_get(head->stored_len));
    if (rec_len > len) {
        if (out_need != NULL)
            *out_need = rec_len;
        return -E2BIG;
    }
    used = (uint32_t)HEAD_BYTES + le16_get(head->key_len) + le32_get(head->stored_len);
    if (bkv_crc(addr, gen, buf + sizeof(head->crc), used - sizeof(head->crc)) !=
        le32_get(head->crc))
        return -EBADMSG;
    if (!bytes_are_zero(buf + used, rec_len - used) || !head_is_consistent(head))
        return -EBADMSG;
    *out = (struct bkv_record_out){
        .type = head->type,
        .flags = head->flags,
        .seq = le64_get(head->seq),
        .value_len = le64_get(head->value_len),
        .rec_len = rec_len,
        .stored_len = le32_get(head->stored_len),
        .key_len = le16_get(head->key_len),
        .key_hash = le32_get(head->key_hash),
    };
    out->key = bytes_make(head->data, out->key_len);
    out->stored = bytes_make(head->data + out->key_len, out->stored_len);
    return (int)rec_len;
}

int bkv_record_key(struct bkv_codec *codec, const struct bkv_record_out *rec, uint8_t *scratch,
                   struct bytes *out_key)
{
    (void)codec;
    (void)scratch;
    *out_key = rec->key;
    return 0;
}

int bkv_record_value(struct bkv_codec *codec, const struct bkv_record_out *rec, uint64_t off,
                     uint64_t len, const struct iovec *iov, unsigned iovcnt, uint8_t *scratch,
                     uint64_t *out_moved)
{
    (void)codec;
    (void)scratch;
    if (off >= rec->stored.len) {
        *out_moved = 0;
        return 0;
    }
    *out_moved =
        iov_copy_in(iov, iovcnt, 0, rec->stored.ptr + off, MIN(len, rec->stored.len - off));
    return 0;
}

/* Cheap questions first: nearly every offset of a sector is sent away by the first one. */
static bool may_be_of_key(const uint8_t *at, size_t len, struct bytes key, uint64_t hash)
{
    const struct bkv_record *head = (const struct bkv_record *)at;

    if (le32_get(head->key_hash) != (uint32_t)hash || le16_get(head->key_len) != key.len)
        return false;
    if (!head_is_plausible(head))
        return false;
    return len - HEAD_BYTES < key.len || memcmp(head->data, key.ptr, key.len) == 0;
}

int bkv_record_search(struct bkv_codec *codec, const uint8_t *buf, size_t len, uint64_t addr,
                      uint32_t gen, uint32_t sector_bytes, struct bytes key, uint64_t hash,
                      uint8_t *scratch, struct bkv_record_out *out, uint32_t *out_need)
{
    int rc = -ENOENT;

    for (uint32_t at = 0; at < sector_bytes && at < len; at += BKV_ALIGN) {
        struct bkv_record_out rec;
        struct bytes found;
        uint32_t need = 0;
        int got;

        /* A head that the buffer cuts off could be the one: only more bytes tell. */
        if (len - at >= HEAD_BYTES && !may_be_of_key(buf + at, len - at, key, hash))
            continue;
        got = bkv_record_decode(buf + at, len - at, addr + at, gen, &rec, &need);
        if (got >= 0)
            got = bkv_record_key(codec, &rec, scratch, &found);
        if (got >= 0 && bytes_eq(found, key)) {
            *out = rec;
            return (int)at;
        }
        if (got == -E2BIG && (rc != -E2BIG || at + need > *out_need))
            *out_need = at + need;
        if (got < 0 && rc != -E2BIG)
            rc = got;
    }
    return rc;
}
