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

static bool fits(const struct bkv_record_in *in, bool sealed, size_t room)
{
    return bkv_record_len((uint32_t)in->key.len, in->value_bytes + (sealed ? BKV_SEAL_BYTES : 0)) <=
           room;
}

/* Everything of a record but the checksum; what is stored of the value is `stored` bytes. */
static void put_head(struct bkv_record *head, const struct bkv_record_in *in, uint32_t stored,
                     uint8_t flags)
{
    *head = (struct bkv_record){
        .key_hash = le32_make((uint32_t)in->hash),
        .stored_len = le32_make(stored),
        .key_len = le16_make((uint16_t)in->key.len),
        .type = in->type,
        .flags = flags,
        .value_len = le64_make(in->value_len),
        .seq = le64_make(in->seq),
    };
}

static struct bytes aad_of(const struct bkv_record *head)
{
    return bytes_make(&head->key_hash, HEAD_BYTES - sizeof(head->crc));
}

/* The value where it belongs, compressed if that makes it shorter; returns its length there. */
static uint32_t put_value(struct bkv_codec *codec, const struct bkv_record_in *in, uint8_t *at,
                          uint8_t *flags)
{
    size_t packed = 0;

    if (in->type == BKV_VALUE)
        packed = bkv_codec_pack_iov(codec, in->iov, in->value_bytes, at, in->value_bytes, flags);
    if (packed > 0)
        return (uint32_t)packed;
    *flags = in->flags;
    iov_copy_out(in->iov, in->iovcnt, 0, at, in->value_bytes);
    return in->value_bytes;
}

/* The way through a codec: several passes. */
static int encode_transformed(struct bkv_codec *codec, const struct bkv_record_in *in,
                              uint64_t addr, uint32_t gen, uint8_t *out)
{
    struct bkv_record *head = (struct bkv_record *)out;
    bool sealed = bkv_codec_seals(codec);
    uint8_t *key = head->data + (sealed ? BKV_NONCE_BYTES : 0);
    uint32_t key_len = (uint32_t)in->key.len, len, rec_len, used;
    uint8_t flags = 0;

    memcpy(key, in->key.ptr, key_len);
    len = put_value(codec, in, key + key_len, &flags);
    if (sealed) {
        int rc;

        put_head(head, in, len + BKV_SEAL_BYTES, flags | BKV_F_SEALED);
        rc = bkv_codec_seal(codec, aad_of(head), key, key_len + len, head->data,
                            key + key_len + len);
        if (rc < 0)
            return rc;
        len += BKV_SEAL_BYTES;
    } else {
        put_head(head, in, len, flags);
    }
    used = (uint32_t)HEAD_BYTES + key_len + len;
    rec_len = bkv_record_len(key_len, len);
    memset(out + used, 0, rec_len - used);
    head->crc = le32_make(crc32c(seed(addr, gen), &head->key_hash, used - sizeof(head->crc)));
    return (int)rec_len;
}

int bkv_record_encode(struct bkv_codec *codec, const struct bkv_record_in *in, uint64_t addr,
                      uint32_t gen, uint8_t *out, size_t room)
{
    struct bkv_record *head = (struct bkv_record *)out;
    uint32_t rec_len = bkv_record_len((uint32_t)in->key.len, in->value_bytes);
    size_t used = HEAD_BYTES + in->key.len + in->value_bytes;
    uint32_t crc;

    must(in->key.len >= 1 && in->key.len <= BKV_KEY_MAX && in->value_bytes <= BKV_INLINE_MAX);
    must(iov_len(in->iov, in->iovcnt) >= in->value_bytes);
    if (!fits(in, bkv_codec_seals(codec), room))
        return -E2BIG;
    if (codec != NULL)
        return encode_transformed(codec, in, addr, gen, out);
    put_head(head, in, in->value_bytes, in->flags);
    memcpy(head->data, in->key.ptr, in->key.len);
    crc = crc32c(seed(addr, gen), &head->key_hash, HEAD_BYTES - sizeof(head->crc) + in->key.len);
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
           head->type >= BKV_VALUE && head->type <= BKV_TXN &&
           (head->flags & ~(BKV_F_KNOWN | BKV_F_UNFLUSHED)) == 0;
}

/* What must hold of a head that we have written: only a bug or a forger gets past the checksum. */
static bool head_is_consistent(const struct bkv_record *head)
{
    uint32_t stored = le32_get(head->stored_len);
    uint8_t packing = head->flags & (BKV_F_ZSTD | BKV_F_LZ4);

    if ((head->flags & BKV_F_UNFLUSHED) != 0 &&
        (head->type != BKV_LARGE_VALUE || le64_get(head->value_len) > BKV_UNFLUSHED_MAX))
        return false;
    if ((head->flags & BKV_F_SEALED) != 0) {
        if (stored < BKV_SEAL_BYTES)
            return false;
        stored -= BKV_SEAL_BYTES;
    }
    if (packing != 0)
        return head->type == BKV_VALUE && packing != (BKV_F_ZSTD | BKV_F_LZ4) &&
               stored < le64_get(head->value_len) && le64_get(head->value_len) <= BKV_INLINE_MAX;
    switch (head->type) {
    case BKV_VALUE:
        return le64_get(head->value_len) == stored;
    case BKV_DELETE:
        return stored == 0;
    case BKV_TXN:
        return stored == sizeof(struct bkv_txn_mark);
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
    bkv_record_view(buf, out);
    return (int)rec_len;
}

void bkv_record_view(const uint8_t *buf, struct bkv_record_out *out)
{
    const struct bkv_record *head = (const struct bkv_record *)buf;

    *out = (struct bkv_record_out){
        .type = head->type,
        .flags = head->flags,
        .seq = le64_get(head->seq),
        .value_len = le64_get(head->value_len),
        .rec_len = bkv_record_len(le16_get(head->key_len), le32_get(head->stored_len)),
        .stored_len = le32_get(head->stored_len),
        .key_len = le16_get(head->key_len),
        .key_hash = le32_get(head->key_hash),
    };
    if ((head->flags & BKV_F_SEALED) == 0)
        out->key = bytes_make(head->data, out->key_len);
    out->stored =
        bytes_make(head->data + out->key.len, out->key_len - out->key.len + out->stored_len);
}

/* Decrypts the first `want` bytes of key and value of a sealed record into `out`. */
static int unseal(struct bkv_codec *codec, const struct bkv_record_out *rec, uint8_t *out,
                  size_t want)
{
    const uint8_t *nonce = rec->stored.ptr; /* data[] of the record */
    const struct bkv_record *head = (const struct bkv_record *)(nonce - HEAD_BYTES);
    size_t len = rec->stored.len - BKV_SEAL_BYTES;

    return bkv_codec_unseal_some(codec, aad_of(head), bytes_make(nonce + BKV_NONCE_BYTES, len),
                                 nonce, nonce + BKV_NONCE_BYTES + len, out, want);
}

int bkv_record_key(struct bkv_codec *codec, const struct bkv_record_out *rec, uint8_t *scratch,
                   struct bytes *out_key)
{
    int rc;

    if ((rec->flags & BKV_F_SEALED) == 0) {
        *out_key = rec->key;
        return 0;
    }
    rc = unseal(codec, rec, scratch, rec->key_len);
    if (rc < 0)
        return rc;
    *out_key = bytes_make(scratch, rec->key_len);
    return 0;
}

/* The whole value, as it is before the codec. */
static int open_value(struct bkv_codec *codec, const struct bkv_record_out *rec, uint8_t *scratch,
                      struct bytes *out)
{
    uint8_t packing = rec->flags & (BKV_F_ZSTD | BKV_F_LZ4);
    struct bytes value = rec->stored;
    int rc;

    if ((rec->flags & BKV_F_SEALED) != 0) {
        rc = unseal(codec, rec, scratch, rec->stored.len - BKV_SEAL_BYTES);
        if (rc < 0)
            return rc;
        value = bytes_make(scratch + rec->key_len, rec->stored_len - BKV_SEAL_BYTES);
        scratch += BKV_SCRATCH_BYTES / 2;
    }
    if (packing != 0) {
        rc = bkv_codec_unpack(codec, packing, value, scratch, rec->value_len);
        if (rc < 0)
            return rc;
        value = bytes_make(scratch, rec->value_len);
    }
    *out = value;
    return 0;
}

int bkv_record_value(struct bkv_codec *codec, const struct bkv_record_out *rec, uint64_t off,
                     uint64_t len, const struct iovec *iov, unsigned iovcnt, uint8_t *scratch,
                     uint64_t *out_moved)
{
    struct bytes value;
    int rc = open_value(codec, rec, scratch, &value);

    if (rc < 0)
        return rc;
    *out_moved = off < value.len
                     ? iov_copy_in(iov, iovcnt, 0, value.ptr + off, MIN(len, value.len - off))
                     : 0;
    return 0;
}

/* Cheap questions first: nearly every offset of a sector is sent away by the first one. */
static bool may_be_of_key(const uint8_t *at, size_t len, struct bytes key, uint64_t hash)
{
    const struct bkv_record *head = (const struct bkv_record *)at;

    if (le32_get(head->key_hash) != (uint32_t)hash || le16_get(head->key_len) != key.len)
        return false;
    if (!head_is_plausible(head) || head->type == BKV_TXN)
        return false;
    if ((head->flags & BKV_F_SEALED) != 0)
        return true;
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
