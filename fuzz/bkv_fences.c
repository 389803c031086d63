/* SPDX-License-Identifier: Apache-2.0 */
/* The fences of a blobkv checkpoint, in pieces: refused, or a tree whose separators ascend and
 * which encodes to fences that decode again. */
#include "fuzz/fuzz.h"

#include "kv/drivers/blobkv/fence.h"

static struct bkv_tree_io io;

static struct bkv_tree *decode(const uint8_t *bytes, size_t len, size_t piece)
{
    struct bkv_tree_decoder *d = bkv_tree_decoder_new(&io);
    struct bkv_tree *tree = NULL;

    must(d != NULL);
    for (size_t at = 0; at < len; at += piece) {
        if (bkv_tree_decode(d, bytes + at, MIN(piece, len - at)) < 0)
            break;
    }
    return bkv_tree_decoded(d, &tree) < 0 ? NULL : tree;
}

static void is_in_order(struct bkv_tree *tree)
{
    static uint8_t key[2][BKV_KEY_MAX];
    struct bkv_fence_pos pos = {0};
    uint32_t len[2] = {0};

    for (uint64_t i = 0; i < tree->nleaves; i++) {
        unsigned now = i % 2;
        struct bytes sep, before = bytes_make(key[!now], len[!now]);

        len[now] = bkv_fence_key(tree->block[pos.block], pos.idx, key[now]);
        sep = bytes_make(key[now], len[now]);
        must(i == 0 || bytes_cmp(before, sep) < 0);
        must(bkv_tree_leaf(tree, i) == bkv_fence_addr(bkv_fence_at(tree, pos)));
        must(sep.len == 0 || bkv_fence_leaf(tree, bkv_fence_find(tree, sep)) == i);
        (void)bkv_fence_next(tree, &pos);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_len)
{
    struct input in = {input, input_len};
    size_t piece = 1 + (size_t)input_u8(&in) * 8, len, n;
    uint8_t *bytes = input_take(&in, in.left, &len);
    struct bkv_tree *tree = decode(bytes, len, piece);

    if (tree != NULL) {
        uint64_t total = bkv_tree_encoded_bytes(tree), pos = 0;
        uint8_t *again = malloc(total + BKV_PAGE_BYTES);
        struct bkv_tree *back;

        must(again != NULL);
        is_in_order(tree);
        for (len = 0; (n = bkv_tree_encode(tree, &pos, again + len, BKV_PAGE_BYTES)) > 0; len += n)
            ;
        must(len == total);
        back = decode(again, len, piece);
        must(back != NULL);
        must(back->nleaves == tree->nleaves);
        must(back->nkeys == tree->nkeys);
        must(bkv_tree_encoded_bytes(back) == total);
        bkv_tree_put(back);
        bkv_tree_put(tree);
        free(again);
    }
    free(bytes);
    return 0;
}
