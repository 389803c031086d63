/* SPDX-License-Identifier: Apache-2.0 */
/* A leaf of blobkv's index with a checksum that is right, which is what a forger makes: refused, or
 * in order, and then it is found in it what walking it shows. Encodes to a leaf that says the same.
 */
#include "fuzz/fuzz.h"

#include "kv/drivers/blobkv/leaf.h"

#define ADDR 0x30000u
#define GEN 5u

static struct bkv_leaf_build build;
static uint8_t scratch[BKV_KEY_MAX], key_buf[BKV_KEY_MAX], again[BKV_PAGE_BYTES];

static void same_place(const struct bkv_place *a, const struct bkv_place *b)
{
    must(a->addr == b->addr);
    must(a->seq == b->seq);
    must(a->value_len == b->value_len);
    must(a->rec_len == b->rec_len);
    must(a->type == b->type);
}

/* All keys after the first one at once, as walking shows them. */
static void run(const uint8_t *page, unsigned n)
{
    static uint8_t out[4 * BKV_PAGE_BYTES * 16];
    struct bkv_leaf_iter it, at;
    struct bkv_place place;
    size_t used = 0, from = 0;
    int got;

    bkv_leaf_first(&it, page, key_buf);
    must(bkv_leaf_next(&it, &place) == 1);
    at = it;
    at.key = scratch;
    memcpy(scratch, key_buf, it.key_len);
    got = bkv_leaf_run(&it, (struct bytes){0}, (struct bytes){0}, out, sizeof(out), &used);
    must(got >= 0);
    must((unsigned)got < n);
    for (; got > 0; got--) {
        must(bkv_leaf_next(&at, &place) == 1);
        must(le16_at(out + from) == at.key_len);
        must(memcmp(out + from + 2, at.key, at.key_len) == 0);
        from += 2 + at.key_len;
    }
    must(from == used);
}

/* Every entry is found, is where a search for it leads, and goes into a leaf of our own, which
 * needs no more room. */
static void walk(const uint8_t *page)
{
    struct bkv_leaf_iter it, at;
    struct bkv_place place, found;
    unsigned n = 0;
    uint32_t crc;
    int rc;

    bkv_leaf_first(&it, page, key_buf);
    bkv_leaf_begin(&build, again);
    while ((rc = bkv_leaf_next(&it, &place)) == 1) {
        struct bytes key = bytes_make(it.key, it.key_len);

        must(bkv_leaf_find(page, key, &found) == 0);
        same_place(&place, &found);
        bkv_leaf_first(&at, page, scratch);
        must(bkv_leaf_seek(&at, key, false) == 0);
        must(bkv_leaf_next(&at, &found) == 1);
        must(bytes_eq(bytes_make(at.key, at.key_len), key));
        must(bkv_leaf_add(&build, key, &place) == 1);
        n++;
    }
    must(rc == 0);
    must(n == bkv_leaf_count(page));
    run(page, n);
    bkv_leaf_end(&build, 1);
    must(bkv_leaf_seal(NULL, again, ADDR, GEN, &crc) == 0);
    must(bkv_leaf_open(NULL, again, ADDR, GEN, crc, scratch) == 0);
    must(bkv_leaf_count(again) == n);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_len)
{
    struct input in = {input, input_len};
    uint8_t mode = input_u8(&in);
    uint8_t *page = malloc(BKV_PAGE_BYTES);
    struct bkv_leaf_head *h = (struct bkv_leaf_head *)page;
    struct bkv_leaf_iter it;
    struct bkv_place place;
    uint32_t crc;
    int rc;

    must(page != NULL);
    input_fill(&in, page, BKV_PAGE_BYTES);
    if ((mode & 1) != 0)
        h->magic = le32_make(BKV_LEAF_MAGIC);
    crc = bkv_crc(ADDR, GEN, page + 4, BKV_PAGE_BYTES - 4);
    h->crc = le32_make(crc);
    must(bkv_leaf_open(NULL, page, ADDR, GEN, crc + 1, scratch) == -EBADMSG);
    if (bkv_leaf_open(NULL, page, ADDR, GEN, crc, scratch) == 0)
        walk(page);
    /* Who only searches has not looked at every entry. */
    if (bkv_leaf_open(NULL, page, ADDR, GEN, crc, NULL) == 0) {
        (void)bkv_leaf_find(page, bytes_make(page + 60, page[59]), &place);
        bkv_leaf_first(&it, page, scratch);
        if (bkv_leaf_seek(&it, bytes_make(page + 60, page[59]), (mode & 2) != 0) == 0) {
            do {
                rc = bkv_leaf_next(&it, &place);
            } while (rc == 1);
        }
    }
    free(page);
    return 0;
}
