/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/fence.h"

#include "base/must.h"

static const uint8_t *key_bytes(const struct bkv_fences *b)
{
    return (const uint8_t *)&b->slot[b->n];
}

/* What follows the prefix of separator idx. */
static struct bytes key_rest(const struct bkv_fences *b, uint32_t idx)
{
    uint32_t from = idx == 0 ? b->prefix_len : b->slot[idx - 1].key_end;

    return bytes_make(key_bytes(b) + from, b->slot[idx].key_end - from);
}

uint32_t bkv_fence_key(const struct bkv_fences *b, uint32_t idx, uint8_t *out)
{
    struct bytes rest = key_rest(b, idx);

    memcpy(out, key_bytes(b), b->prefix_len);
    memcpy(out + b->prefix_len, rest.ptr, rest.len);
    return b->prefix_len + (uint32_t)rest.len;
}

/* The key without the block's prefix, when it has that; else how it compares to all of them. */
static int strip_prefix(const struct bkv_fences *b, struct bytes key, struct bytes *out_rest)
{
    size_t n = MIN(key.len, b->prefix_len);
    int cmp = n == 0 ? 0 : memcmp(key.ptr, key_bytes(b), n);

    if (cmp == 0 && key.len < b->prefix_len)
        cmp = -1;
    if (cmp == 0)
        *out_rest = bytes_make(key.ptr + b->prefix_len, key.len - b->prefix_len);
    return cmp;
}

static bool block_begins_above(const struct bkv_fences *b, struct bytes key)
{
    struct bytes rest;
    int cmp = strip_prefix(b, key, &rest);

    return cmp < 0 || (cmp == 0 && bytes_cmp(key_rest(b, 0), rest) > 0);
}

struct bkv_fence_pos bkv_fence_find(const struct bkv_tree *tree, struct bytes key)
{
    uint32_t lo = 0, hi = tree->nblocks, first = 0, end;
    struct bytes rest = {0};
    const struct bkv_fences *b;
    int cmp;

    must(tree->nblocks > 0);
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (block_begins_above(tree->block[mid], key))
            hi = mid;
        else
            lo = mid;
    }
    b = tree->block[lo];
    cmp = strip_prefix(b, key, &rest);
    if (cmp != 0)
        return (struct bkv_fence_pos){lo, cmp < 0 ? 0 : b->n - 1u};
    end = b->n;
    while (end - first > 1) {
        uint32_t mid = (first + end) / 2;

        if (bytes_cmp(key_rest(b, mid), rest) > 0)
            end = mid;
        else
            first = mid;
    }
    return (struct bkv_fence_pos){lo, first};
}

struct bkv_fence_pos bkv_fence_pos(const struct bkv_tree *tree, uint64_t leaf)
{
    uint32_t lo = 0, hi = tree->nblocks;

    must(leaf < tree->nleaves);
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (tree->first[mid] > leaf)
            hi = mid;
        else
            lo = mid;
    }
    return (struct bkv_fence_pos){lo, (uint32_t)(leaf - tree->first[lo])};
}

/* --- collecting ------------------------------------------------------------------------------- */

static void block_put(struct bkv_fences *b)
{
    if (--b->refs == 0)
        free(b);
}

static int block_push(struct bkv_fence_build *b, struct bkv_fences *block)
{
    if (b->nblocks == b->max_blocks) {
        uint32_t max = MAX(16u, b->max_blocks + b->max_blocks / 2);
        struct bkv_fences **more = realloc(b->block, max * sizeof(*more));

        if (more == NULL)
            return -ENOMEM;
        b->block = more;
        b->max_blocks = max;
    }
    b->block[b->nblocks++] = block;
    return 0;
}

static struct bytes built_key(const struct bkv_fence_build *b, uint32_t idx)
{
    uint32_t from = idx == 0 ? 0 : b->slot[idx - 1].key_end;

    return bytes_make(b->key + from, b->slot[idx].key_end - from);
}

/* Makes a block of what has been collected. Separators ascend, so what the first and the last one
 * share all of them do. */
static int block_close(struct bkv_fence_build *b)
{
    struct bkv_fences *block;
    struct bytes first, last;
    uint32_t prefix = 0, end;
    size_t bytes;
    uint8_t *keys;
    int rc;

    if (b->n == 0)
        return 0;
    first = built_key(b, 0);
    last = built_key(b, b->n - 1);
    while (prefix < MIN(first.len, last.len) && first.ptr[prefix] == last.ptr[prefix])
        prefix++;
    bytes = sizeof(*block) + b->n * sizeof(*block->slot) + b->key_bytes - (b->n - 1) * prefix;
    block = malloc(bytes);
    if (block == NULL)
        return -ENOMEM;
    *block = (struct bkv_fences){
        .refs = 1, .bytes = (uint32_t)bytes, .n = (uint16_t)b->n, .prefix_len = (uint16_t)prefix};
    memcpy(block->slot, b->slot, b->n * sizeof(*b->slot));
    keys = (uint8_t *)&block->slot[b->n];
    memcpy(keys, first.ptr, prefix);
    end = prefix;
    for (uint32_t i = 0; i < b->n; i++) {
        struct bytes key = built_key(b, i);

        memcpy(keys + end, key.ptr + prefix, key.len - prefix);
        end += (uint32_t)key.len - prefix;
        block->slot[i].key_end = (uint16_t)end;
    }
    rc = block_push(b, block);
    if (rc < 0) {
        free(block);
        return rc;
    }
    b->n = 0;
    b->key_bytes = 0;
    return 0;
}

int bkv_fence_add(struct bkv_fence_build *b, struct bytes key, uint64_t addr, uint32_t crc)
{
    int rc;

    if (b->n == BKV_FENCES_MAX || b->key_bytes + key.len > sizeof(b->key)) {
        rc = block_close(b);
        if (rc < 0)
            return rc;
    }
    if (key.len > 0)
        memcpy(b->key + b->key_bytes, key.ptr, key.len);
    b->key_bytes += (uint32_t)key.len;
    b->slot[b->n++] = (struct bkv_fence_slot){
        .addr_low = (uint32_t)addr,
        .addr_high = (uint16_t)(addr >> 32),
        .key_end = (uint16_t)b->key_bytes,
        .crc = crc,
    };
    return 0;
}

/* A whole block of another tree is shared unless that would leave a small one before it. */
static bool can_share(const struct bkv_fence_build *b, const struct bkv_fences *block)
{
    return (b->n == 0 || b->n >= BKV_FENCES_MAX / 4) && block->n >= BKV_FENCES_MAX / 4;
}

int bkv_fence_add_range(struct bkv_fence_build *b, const struct bkv_tree *tree, uint64_t from,
                        uint64_t to, uint8_t *key_buf)
{
    struct bkv_fence_pos pos;
    int rc = 0;

    if (from == to)
        return 0;
    pos = bkv_fence_pos(tree, from);
    while (from < to) {
        struct bkv_fences *block = tree->block[pos.block];

        if (pos.idx == 0 && to - from >= block->n && can_share(b, block)) {
            rc = block_close(b);
            if (rc == 0)
                rc = block_push(b, block);
            if (rc < 0)
                return rc;
            block->refs++;
            from += block->n;
            pos.block++;
            continue;
        }
        rc = bkv_fence_add(b, bytes_make(key_buf, bkv_fence_key(block, pos.idx, key_buf)),
                           bkv_fence_addr(&block->slot[pos.idx]), block->slot[pos.idx].crc);
        if (rc < 0)
            return rc;
        from++;
        (void)bkv_fence_next(tree, &pos);
    }
    return 0;
}

void bkv_fence_discard(struct bkv_fence_build *b)
{
    for (uint32_t i = 0; i < b->nblocks; i++)
        block_put(b->block[i]);
    free(b->block);
    b->block = NULL;
    b->nblocks = b->max_blocks = b->n = b->key_bytes = 0;
}

struct bkv_tree *bkv_fence_tree(struct bkv_fence_build *b, struct bkv_tree_io *io)
{
    CLEANUP(free_p) struct bkv_tree *tree = calloc(1, sizeof(*tree));
    int rc = block_close(b);

    if (tree != NULL && rc == 0)
        tree->first = malloc((b->nblocks + 1ull) * sizeof(*tree->first));
    if (tree == NULL || tree->first == NULL) {
        bkv_fence_discard(b);
        return NULL;
    }
    tree->io = io;
    tree->refs = 1;
    tree->nblocks = b->nblocks;
    tree->block = take_ptr(&b->block);
    tree->bytes = sizeof(*tree) + tree->nblocks * (sizeof(*tree->block) + sizeof(*tree->first));
    for (uint32_t i = 0; i < tree->nblocks; i++) {
        tree->first[i] = tree->nleaves;
        tree->nleaves += tree->block[i]->n;
        tree->bytes += tree->block[i]->bytes;
    }
    tree->first[tree->nblocks] = tree->nleaves;
    b->nblocks = b->max_blocks = 0;
    return take_ptr(&tree);
}

struct bkv_tree *bkv_tree_ref(struct bkv_tree *tree)
{
    tree->refs++;
    return tree;
}

void bkv_tree_put(struct bkv_tree *tree)
{
    if (tree == NULL || --tree->refs > 0)
        return;
    for (uint32_t i = 0; i < tree->nblocks; i++)
        block_put(tree->block[i]);
    free(tree->block);
    free(tree->first);
    free(tree);
}
