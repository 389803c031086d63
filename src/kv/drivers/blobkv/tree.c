/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/tree.h"

#include "kv/drivers/blobkv/fence.h"
#include "kv/drivers/blobkv/leaf.h"

#include "base/must.h"
#include "rt/buf.h"

struct bkv_tree *bkv_tree_new(struct bkv_tree_io *io)
{
    struct bkv_tree *tree = calloc(1, sizeof(*tree));

    if (tree == NULL)
        return NULL;
    tree->io = io;
    tree->refs = 1;
    tree->bytes = sizeof(*tree);
    return tree;
}

uint64_t bkv_tree_nkeys(const struct bkv_tree *tree)
{
    return tree->nkeys;
}

uint64_t bkv_tree_nleaves(const struct bkv_tree *tree)
{
    return tree->nleaves;
}

uint64_t bkv_tree_bytes(const struct bkv_tree *tree)
{
    return tree->bytes;
}

uint64_t bkv_tree_leaf(const struct bkv_tree *tree, uint64_t i)
{
    return bkv_fence_addr(bkv_fence_at(tree, bkv_fence_pos(tree, i)));
}

int bkv_tree_find_cached(struct bkv_tree *tree, struct bytes key, struct bkv_place *out)
{
    struct bytes page;

    if (tree->nleaves == 0)
        return -ENOENT;
    if (tree->io->cache == NULL)
        return -EAGAIN;
    page = bkv_cache_get(tree->io->cache,
                         bkv_fence_addr(bkv_fence_at(tree, bkv_fence_find(tree, key))));
    if (page.len != BKV_PAGE_BYTES)
        return -EAGAIN;
    return bkv_leaf_find(page.ptr, key, out);
}

int bkv_tree_read_leaves(struct rt_task *t, struct bkv_tree *tree, struct bkv_leaf_ref *ref,
                         unsigned n, uint8_t *pages, uint8_t *scratch, bool keep)
{
    struct bkv_tree_io *io = tree->io;
    struct bkv_leaf_ref *missing[BKV_LEAVES_MAX];
    uint64_t addr[BKV_LEAVES_MAX];
    uint8_t *spare = pages + (size_t)n * BKV_PAGE_BYTES;
    unsigned nmissing = 0;
    int rc = 0;

    must(n <= BKV_LEAVES_MAX);
    for (unsigned i = 0; i < n; i++) {
        uint64_t at = bkv_fence_addr(bkv_fence_at(tree, ref[i].pos));
        struct bytes cached = {0};

        if (io->cache != NULL)
            cached = bkv_cache_get(io->cache, at);
        ref[i].cached = cached.len == BKV_PAGE_BYTES;
        if (ref[i].cached) {
            /* From the end, so that those to be read lie together. */
            spare -= BKV_PAGE_BYTES;
            ref[i].page = spare;
            memcpy(spare, cached.ptr, BKV_PAGE_BYTES);
        } else {
            ref[i].page = pages + (size_t)nmissing * BKV_PAGE_BYTES;
            missing[nmissing] = &ref[i];
            addr[nmissing++] = at;
        }
    }
    if (nmissing == 0)
        return 0;
    if (t == NULL)
        return -EAGAIN;
    rc = io->read(t, io, addr, nmissing, pages);
    for (unsigned i = 0; rc >= 0 && i < nmissing; i++) {
        rc = bkv_leaf_open(io->codec, missing[i]->page, addr[i], io->gen(io, addr[i]),
                           bkv_fence_at(tree, missing[i]->pos)->crc, scratch);
        if (rc == 0 && keep && io->cache != NULL)
            bkv_cache_put(io->cache, addr[i], bytes_make(missing[i]->page, BKV_PAGE_BYTES));
    }
    return rc < 0 ? rc : 0;
}

int bkv_tree_find(struct rt_task *t, struct bkv_tree *tree, struct bytes key, struct bkv_place *out,
                  struct rt_buf **out_leaf)
{
    CLEANUP(rt_buf_put_p) struct rt_buf *buf = NULL;
    struct bkv_leaf_ref ref;
    int rc = bkv_tree_find_cached(tree, key, out);

    if (rc != -EAGAIN)
        return rc;
    bkv_tree_ref(tree); /* whoever calls may let go of it meanwhile */
    buf = rt_buf_take(t, RT_BUF_SMALL_BYTES);
    rc = -ECANCELED;
    if (buf != NULL) {
        ref.pos = bkv_fence_find(tree, key);
        rc = bkv_tree_read_leaves(t, tree, &ref, 1, buf->data, NULL, true);
    }
    bkv_tree_put(tree);
    if (rc < 0)
        return rc;
    rc = bkv_leaf_find(ref.page, key, out);
    if (out_leaf != NULL)
        *out_leaf = take_ptr(&buf);
    return rc;
}
