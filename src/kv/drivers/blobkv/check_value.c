/* SPDX-License-Identifier: Apache-2.0 */
/* bkv_check(): records and the chunks of large values, read from the device and not the cache. */
#include "kv/drivers/blobkv/check.h"

#include "kv/drivers/blobkv/large.h"

/* Reads [addr, addr + len) into ck->buf, from the sector it begins in; *out_at: where it is. */
static int read_at(struct rt_task *t, struct bkv_ck *ck, uint64_t addr, uint32_t len,
                   uint8_t **out_at)
{
    struct bkv *s = ck->s;
    uint64_t first = addr & ~(uint64_t)(s->sector_bytes - 1);
    uint32_t skip = (uint32_t)(addr - first);

    *out_at = ck->buf + skip;
    return bkv_read_sectors(t, s, first, (uint32_t)round_up_u64(skip + len, s->sector_bytes),
                            ck->buf);
}

/* --- chunks ----------------------------------------------------------------------------------- */

#define BAD(ck, off, key, ...) bkv_ck_say(ck, KV_ERROR, "chunk", off, key, __VA_ARGS__)

static void check_data(struct bkv_ck *ck, struct bytes key, const struct bkv_extent *e,
                       const uint8_t *at)
{
    const struct bkv_chunk_head *head = (const struct bkv_chunk_head *)at;
    uint64_t addr = le64_get(e->addr);
    uint32_t head_len = le32_get(e->head_len), data_len = le32_get(e->data_len);
    struct iovec iov = {(void *)(uintptr_t)(at + head_len), data_len};

    if (bkv_chunk_units_check(head, addr, bkv_gen_of(ck->s, addr), head_len, 0, bkv_units(data_len),
                              &iov, 1) < 0)
        BAD(ck, addr + head_len, key, "%u bytes of data do not match their checksums", data_len);
    else if (bkv_chunk_units_open(ck->s->codec, head, 0, bkv_units(data_len),
                                  (uint8_t *)(uintptr_t)(at + head_len)) < 0)
        BAD(ck, addr + head_len, key, "%u bytes of data cannot be decrypted", data_len);
    else
        ck->rep->value_bytes += le32_get(e->raw_len);
}

static void check_head(struct bkv_ck *ck, struct bytes key, const struct bkv_extent *e,
                       const uint8_t *at)
{
    const struct bkv_chunk_head *head = (const struct bkv_chunk_head *)at;
    uint64_t addr = le64_get(e->addr);
    uint32_t need;
    struct bytes found;

    if (bkv_chunk_head_check(at, le32_get(e->head_len), addr, bkv_gen_of(ck->s, addr), &need) < 0) {
        BAD(ck, addr, key, "no chunk, or a damaged one, or of another life of its segment");
        return;
    }
    if (le32_get(head->crc) != le32_get(e->head_crc) ||
        le32_get(head->data_len) != le32_get(e->data_len)) {
        BAD(ck, addr, key, "another chunk than the record names");
        return;
    }
    if (bkv_chunk_key(ck->s->codec, head, ck->scratch, &found) < 0)
        BAD(ck, addr, key, "its key cannot be decrypted");
    else if (!bytes_eq(found, key))
        BAD(ck, addr, key, "a chunk of another key");
    else
        check_data(ck, key, e, at);
}

/* Counts what an extent names. True: its place can be. */
static bool count_extent(struct bkv_ck *ck, enum bkv_ck_who who, struct bytes key,
                         const struct bkv_extent *e)
{
    uint64_t addr = le64_get(e->addr);

    if (le32_get(e->head_len) > BKV_CHUNK_HEAD_MAX || le32_get(e->data_len) > BKV_CHUNK_MAX ||
        le32_get(e->data_len) == 0 || addr % ck->s->sector_bytes != 0) {
        BAD(ck, addr, key, "an extent of %u + %u bytes cannot be", le32_get(e->head_len),
            le32_get(e->data_len));
        return false;
    }
    return bkv_ck_ref(ck, who, "chunk", key, addr, bkv_extent_bytes(ck->s, e), BKV_LARGE,
                      BKV_LARGE);
}

static int check_chunk(struct rt_task *t, struct bkv_ck *ck, enum bkv_ck_who who, struct bytes key,
                       const struct bkv_extent *e, bool read)
{
    uint8_t *at;
    int rc;

    if (!count_extent(ck, who, key, e) || !read)
        return 0;
    rc = read_at(t, ck, le64_get(e->addr), bkv_extent_bytes(ck->s, e), &at);
    if (rc == 0)
        check_head(ck, key, e, at);
    return rc;
}

/* Extents in order; the bytes of the value that they have are added to *raw. */
static int check_extents(struct rt_task *t, struct bkv_ck *ck, enum bkv_ck_who who,
                         struct bytes key, const struct bkv_extent *e, uint64_t n, bool read,
                         uint64_t *raw)
{
    for (uint64_t i = 0; i < n; i++) {
        int rc = check_chunk(t, ck, who, key, &e[i], read);

        if (rc < 0)
            return rc;
        *raw += le32_get(e[i].raw_len);
    }
    return 0;
}

/* A list and what its extents name. It is read always: the accounts depend on it. 1: damaged. */
static int check_list(struct rt_task *t, struct bkv_ck *ck, enum bkv_ck_who who, struct bytes key,
                      const struct bkv_list_ref *l, bool read, uint64_t *raw)
{
    uint32_t len = le32_get(l->e.data_len);
    CLEANUP(free_p) uint8_t *extents = NULL;
    uint64_t before = *raw;
    struct bytes found;
    uint8_t *at;
    int rc;

    if (!count_extent(ck, who, key, &l->e))
        return 1;
    rc = read_at(t, ck, le64_get(l->e.addr), bkv_extent_bytes(ck->s, &l->e), &at);
    if (rc < 0)
        return rc;
    if (len % sizeof(struct bkv_extent) != 0 || bkv_list_check(ck->s, &l->e, at) < 0 ||
        bkv_chunk_key(ck->s->codec, (const struct bkv_chunk_head *)at, ck->scratch, &found) < 0 ||
        (key.len > 0 && !bytes_eq(found, key))) {
        BAD(ck, le64_get(l->e.addr), key, "no list of chunks, or a damaged one, or of another key");
        return 1;
    }
    extents = malloc(len);
    if (extents == NULL)
        return -ENOMEM;
    memcpy(extents, at + le32_get(l->e.head_len), len);
    rc = check_extents(t, ck, who, key, (const struct bkv_extent *)extents,
                       len / sizeof(struct bkv_extent), read, raw);
    if (rc == 0 && *raw - before != le64_get(l->value_len))
        BAD(ck, le64_get(l->e.addr), key, "a list of %lu bytes of the value, the record says %lu",
            *raw - before, le64_get(l->value_len));
    return rc;
}

/* --- records ---------------------------------------------------------------------------------- */

#undef BAD
#define BAD(ck, off, key, ...) bkv_ck_say(ck, KV_ERROR, "record", off, key, __VA_ARGS__)

/* Extents of a LARGE record, which is in ck->buf; they are copied out of it first. */
static int check_large(struct rt_task *t, struct bkv_ck *ck, enum bkv_ck_who who, struct bytes key,
                       uint64_t addr, const struct bkv_record_out *rec, bool read)
{
    struct iovec iov = {ck->value, BKV_INLINE_MAX};
    uint64_t len = 0, raw = 0, want = rec->value_len;
    bool lists, damaged = false;
    uint32_t head, each;
    int rc;

    rc = bkv_record_value(ck->s->codec, rec, 0, BKV_INLINE_MAX, &iov, 1, ck->scratch, &len);
    lists = rc == 0 && bkv_stored_has_lists(bytes_make(ck->value, len));
    head = lists ? BKV_LISTS_HEAD_BYTES : BKV_LARGE_HEAD_BYTES;
    each = lists ? sizeof(struct bkv_list_ref) : sizeof(struct bkv_extent);
    if (rc < 0 || len < head || (len - head) % each != 0) {
        BAD(ck, addr, key, "its list of chunks cannot be read");
        return 0;
    }
    if (!lists)
        rc = check_extents(t, ck, who, key, (const struct bkv_extent *)(ck->value + head),
                           (len - head) / each, read, &raw);
    for (uint64_t at = head; lists && rc >= 0 && at < len; at += each) {
        rc = check_list(t, ck, who, key, (const struct bkv_list_ref *)(ck->value + at), read, &raw);
        damaged = damaged || rc == 1;
    }
    if (rc < 0)
        return rc;
    if (raw != want && !damaged)
        BAD(ck, addr, key, "its chunks have %lu bytes, the value %lu", raw, want);
    return 0;
}

/* What the record says of itself, beside its checksum. True: its value can be looked at. */
static bool says_the_same(struct bkv_ck *ck, struct bytes key, const struct bkv_place *place,
                          const struct bkv_record_out *rec)
{
    struct bytes found;

    if (rec->seq != place->seq || rec->type != place->type || rec->value_len != place->value_len) {
        BAD(ck, place->addr, key,
            "it is number %lu of type %u with %lu bytes, the index says %lu, "
            "%u, %lu",
            rec->seq, rec->type, rec->value_len, place->seq, place->type, place->value_len);
        return false;
    }
    if (rec->key_hash != (uint32_t)bkv_hash(ck->s, key))
        BAD(ck, place->addr, key, "its hash is not its key's");
    if (bkv_record_key(ck->s->codec, rec, ck->scratch, &found) < 0) {
        BAD(ck, place->addr, key, "it cannot be decrypted");
        return false;
    }
    if (!bytes_eq(found, key)) {
        BAD(ck, place->addr, key, "it is of another key");
        return false;
    }
    return true;
}

/* A value that was transformed is brought back: only that tells that it can be. */
static void check_value(struct bkv_ck *ck, struct bytes key, const struct bkv_place *place,
                        const struct bkv_record_out *rec)
{
    struct iovec iov = {ck->value, BKV_INLINE_MAX};
    uint64_t len = rec->stored_len;

    if (rec->flags != 0 &&
        bkv_record_value(ck->s->codec, rec, 0, BKV_INLINE_MAX, &iov, 1, ck->scratch, &len) < 0) {
        BAD(ck, place->addr, key, "its value cannot be decrypted or decompressed");
        return;
    }
    if (len != rec->value_len)
        BAD(ck, place->addr, key, "its value has %lu bytes, not %lu", len, rec->value_len);
    else
        ck->rep->value_bytes += len;
}

static int record_at(struct rt_task *t, struct bkv_ck *ck, struct bytes key, uint64_t addr,
                     uint32_t rec_len, struct bkv_record_out *rec)
{
    uint8_t *at;
    int rc;

    rc = read_at(t, ck, addr, rec_len, &at);
    if (rc < 0)
        return rc;
    rc = bkv_record_decode(at, rec_len, addr, bkv_gen_of(ck->s, addr), rec, NULL);
    if (rc == (int)rec_len)
        return 1;
    if (rc < 0)
        BAD(ck, addr, key, "no record, or a damaged one, or of another life of its segment");
    else
        BAD(ck, addr, key, "it has %d bytes, the index says %u", rc, rec_len);
    return 0;
}

int bkv_ck_record(struct rt_task *t, struct bkv_ck *ck, enum bkv_ck_who who, struct bytes key,
                  const struct bkv_place *place)
{
    struct bkv_record_out rec;
    int rc;

    if (place->rec_len > BKV_RECORD_MAX || place->addr % BKV_ALIGN != 0 ||
        (place->type != BKV_VALUE && place->type != BKV_LARGE_VALUE)) {
        BAD(ck, place->addr, key, "a record of %u bytes and type %u cannot be", place->rec_len,
            place->type);
        return 0;
    }
    /* A segment that was emptied and freed before the next merge: memtables know better. */
    if (who == BKV_CK_TREE && ck->snap == NULL &&
        place->addr >> ck->s->segment_shift < ck->s->nsegs && bkv_is_stale(ck->s, place->addr) &&
        (bkv_memtab_find(ck->s->active, key) != NULL ||
         (ck->s->frozen != NULL && bkv_memtab_find(ck->s->frozen, key) != NULL)))
        return 0;
    if (!bkv_ck_ref(ck, who, "record", key, place->addr, place->rec_len, BKV_HOT, BKV_COLD))
        return 0;
    if (ck->opts->quick && place->type != BKV_LARGE_VALUE)
        return 0;
    rc = record_at(t, ck, key, place->addr, place->rec_len, &rec);
    if (rc <= 0 || !says_the_same(ck, key, place, &rec))
        return MIN(rc, 0);
    if (place->type == BKV_LARGE_VALUE)
        return check_large(t, ck, who, key, place->addr, &rec, !ck->opts->quick);
    check_value(ck, key, place, &rec);
    return 0;
}

int bkv_ck_drop(struct rt_task *t, struct bkv_ck *ck, const struct bkv_drop *drop)
{
    struct bkv_record_out rec;
    struct bytes none = {0};
    int rc;

    if (drop->rec_len > BKV_RECORD_MAX)
        return 0;
    rc = record_at(t, ck, none, drop->addr, drop->rec_len, &rec);
    return rc <= 0 ? rc : check_large(t, ck, BKV_CK_MEM, none, drop->addr, &rec, false);
}
