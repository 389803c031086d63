/* SPDX-License-Identifier: Apache-2.0 */
/* Records and chunk heads of blobkv as they come from a disk that anybody has written to: with
 * their checksum as it is, or made right first, which is what a forger does. */
#include "fuzz/fuzz.h"

#include "kv/drivers/blobkv/chunk.h"
#include "kv/drivers/blobkv/record.h"

#define ADDR 0x30000u
#define GEN 5u

static uint8_t scratch[BKV_SCRATCH_BYTES], value[BKV_INLINE_MAX], again[2 * BKV_INLINE_MAX];

/* Reads both compressions, encrypts nothing. */
static struct bkv_codec *codec(void)
{
    static struct bkv_codec *c;
    static struct bkv_codec_opts opts;
    static struct bkv_super super;

    if (c == NULL) {
        super.incompat = le32_make(BKV_INCOMPAT_ZSTD | BKV_INCOMPAT_LZ4);
        (void)bkv_codec_open(NULL, &opts, &super, &c, NULL);
    }
    return c;
}

static void record_is_right(const uint8_t *buf, const struct bkv_record_out *rec)
{
    struct iovec iov = {value, sizeof(value)};
    uint64_t moved = 0;
    struct bytes key;
    int rc = bkv_record_key(codec(), rec, scratch, &key);

    if ((rec->flags & BKV_F_SEALED) != 0) {
        must(rc == -EACCES);
        must(bkv_record_value(codec(), rec, 0, UINT64_MAX, &iov, 1, scratch, &moved) < 0);
        return;
    }
    must(rc == 0 && key.len == rec->key_len && key.ptr == buf + 32);
    must(rec->stored.ptr + rec->stored.len <= buf + rec->rec_len);
    rc = bkv_record_value(codec(), rec, 0, UINT64_MAX, &iov, 1, scratch, &moved);
    must(rc == 0 || rc == -EBADMSG);
    if (rc == 0 && rec->type == BKV_VALUE)
        must(moved == rec->value_len);
    if (rec->flags == 0 && rec->stored_len <= BKV_INLINE_MAX) {
        struct iovec stored = {(void *)(uintptr_t)rec->stored.ptr, rec->stored.len};
        struct bkv_record_in in = {
            .type = rec->type,
            .key = key,
            .hash = rec->key_hash,
            .seq = rec->seq,
            .iov = &stored,
            .iovcnt = 1,
            .value_bytes = rec->stored_len,
            .value_len = rec->value_len,
        };

        must(rc == 0);
        must(bkv_record_encode(NULL, &in, ADDR, GEN, again, sizeof(again)) == (int)rec->rec_len);
        must(memcmp(again, buf, rec->rec_len) == 0);
    }
}

/* Makes the checksum right, of as many bytes as the lengths in the head say. */
static void forge_record(uint8_t *buf, size_t len)
{
    const struct bkv_record *head = (const struct bkv_record *)buf;
    uint64_t used;

    if (len < sizeof(*head))
        return;
    used = sizeof(*head) + le16_get(head->key_len) + (uint64_t)le32_get(head->stored_len);
    if (used <= len)
        le32_put(buf, bkv_crc(ADDR, GEN, buf + 4, used - 4));
}

static void try_record(uint8_t *buf, size_t len, bool forge)
{
    struct bkv_record_out rec;
    uint8_t type, flags;
    uint32_t need = 0;
    struct bytes key;
    int rc;

    if (forge)
        forge_record(buf, len);
    rc = bkv_record_decode(buf, len, ADDR, GEN, &rec, &need);
    must(rc > 0 || rc == -EBADMSG || rc == -E2BIG);
    must(rc != -E2BIG || need > len);
    if (rc < 0)
        return;
    must((uint32_t)rc == rec.rec_len && rec.rec_len <= len && rec.rec_len % BKV_ALIGN == 0);
    record_is_right(buf, &rec);
    type = rec.type;
    flags = rec.flags;
    key = (flags & BKV_F_SEALED) == 0 ? rec.key : bytes_make("x", 1);
    rc = bkv_record_search(codec(), buf, len, ADDR, GEN, 512, key, rec.key_hash, scratch, &rec,
                           &need);
    if (type == BKV_TXN)
        must(rc != 0); /* of no key */
    else
        must(rc == 0 || (flags & BKV_F_SEALED) != 0);
}

static void try_chunk(uint8_t *buf, size_t len, bool forge)
{
    struct bkv_chunk_head *head = (struct bkv_chunk_head *)buf;
    struct bytes key;
    uint32_t need = 0, units;
    int rc = bkv_chunk_head_check(buf, len, ADDR, GEN, &need);

    must(rc == -EBADMSG || rc == -E2BIG || (rc > 0 && (uint32_t)rc == need));
    if (forge && rc == -EBADMSG && need > sizeof(*head) && need <= len) {
        le32_put(buf, bkv_crc(ADDR, GEN, buf + 4, need - 4));
        rc = bkv_chunk_head_check(buf, len, ADDR, GEN, &need);
        must(rc == (int)need);
    }
    if (rc < 0)
        return;
    must((size_t)rc <= len && rc <= (int)BKV_CHUNK_HEAD_MAX);
    units = bkv_units(le32_get(head->data_len));
    must(units >= 1 && units <= BKV_UNITS_MAX);
    must(bkv_chunk_crc_at(head, units - 1) + 4 <= buf + rc);
    rc = bkv_chunk_key(NULL, head, scratch, &key);
    must((head->flags & BKV_F_SEALED) != 0 ? rc == -EACCES
                                           : rc == 0 && key.ptr + key.len <= buf + len);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_len)
{
    struct input in = {input, input_len};
    uint8_t mode = input_u8(&in);
    size_t len;
    uint8_t *buf = input_take(&in, in.left, &len);

    if ((mode & 1) != 0)
        try_chunk(buf, len, (mode & 2) != 0);
    else
        try_record(buf, len, (mode & 2) != 0);
    free(buf);
    return 0;
}
