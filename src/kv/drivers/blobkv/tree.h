/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index on the device: leaves of 4 KiB in key order, never changed in place, and above them the
 * fences in memory. A tree is one version of it, counted: a checkpoint makes the next one and lets
 * go of the last, a snapshot keeps its own.
 *
 * The tree does I/O through `struct bkv_tree_io`, so that it can be tested on an array.
 */
#ifndef KVASIR_KV_BLOBKV_TREE_H
#define KVASIR_KV_BLOBKV_TREE_H

#include "kv/drivers/blobkv/cache.h"
#include "kv/drivers/blobkv/format.h"
#include "kv/drivers/blobkv/memtab.h"

#include "rt/rt.h"

struct bkv_codec;

/** How a tree reaches the device; every call may wait. */
struct bkv_tree_io {
    /* Reads `n` pages at once, each at its address, into buf (n * 4096 bytes, 4096-aligned). */
    int (*read)(struct rt_task *t, struct bkv_tree_io *io, const uint64_t *addr, unsigned n,
                uint8_t *buf);
    /* Appends n pages to the index stream (n * 4096 bytes, aligned); out_addr[n] and out_gen[n]
     * tell where each one goes: called first with buf NULL to learn that, since pages contain
     * checksums of their place, then with the bytes. The runs are contiguous as far as possible. */
    int (*place)(struct rt_task *t, struct bkv_tree_io *io, unsigned n, uint64_t *out_addr,
                 uint32_t *out_gen);
    int (*write)(struct rt_task *t, struct bkv_tree_io *io, const uint64_t *addr, unsigned n,
                 const uint8_t *buf);
    /* The generation of the segment an address is in. Never waits. */
    uint32_t (*gen)(struct bkv_tree_io *io, uint64_t addr);
    struct bkv_cache *cache; /* leaves are kept there; may be NULL */
    struct bkv_codec *codec; /* encrypts leaves; may be NULL */
};

struct bkv_tree;
struct rt_buf;

struct bkv_tree *bkv_tree_new(struct bkv_tree_io *io); /* an empty one */
struct bkv_tree *bkv_tree_ref(struct bkv_tree *tree);
void bkv_tree_put(struct bkv_tree *tree);
uint64_t bkv_tree_nkeys(const struct bkv_tree *tree);
uint64_t bkv_tree_nleaves(const struct bkv_tree *tree);
uint64_t bkv_tree_bytes(const struct bkv_tree *tree); /* memory */
/** Address of leaf i, i < nleaves: what the tree keeps alive. */
uint64_t bkv_tree_leaf(const struct bkv_tree *tree, uint64_t i);

/** 0; -ENOENT; -EAGAIN the leaf is not in the cache: use bkv_tree_find(). Never waits. */
int bkv_tree_find_cached(struct bkv_tree *tree, struct bytes key, struct bkv_place *out);
/** 0; -ENOENT; -EBADMSG; -EIO; -ECANCELED. When a leaf had to be read, *out_leaf (unless NULL) is
 * the opened page, and the caller's to put back. */
int bkv_tree_find(struct rt_task *t, struct bkv_tree *tree, struct bytes key,
                  struct bkv_place *out, struct rt_buf **out_leaf);

/**
 * Merges a memtable that nobody changes any more into a new tree. What memtable and leaf have under
 * one number: the memtable's (it was moved); a memtable entry with a smaller number than the leaf's
 * is ignored. Yields now and then. 0; -EBADMSG a leaf is damaged; -ENOMEM; -ECANCELED; what `io`
 * returned. On failure nothing of the old tree has changed.
 *
 * `replaced` is told, as the merge goes, of each leaf entry that is not in the new tree any more
 * (its key was stored again, deleted or moved), `ignored` of each memtable entry that was ignored
 * (its type may be BKV_DELETE). A memtable entry that is a delete and was carried out is not told.
 * What they say counts when the merge succeeds, so it is collected by their user until then.
 *
 * `added` is told of each new page when it has its place, `dropped` of each page of the old tree
 * that is not in the new one, all at the end of a merge that succeeds. When it fails, `dropped` is
 * told of all that were added instead.
 *
 * `must_rewrite(addr)`: leaves that have to move although no key of them changed (their segment is
 * being emptied). Each of the five may be NULL.
 */
struct bkv_merge {
    void (*replaced)(struct bkv_merge *m, const struct bkv_place *old);
    void (*ignored)(struct bkv_merge *m, const struct bkv_place *old);
    void (*dropped)(struct bkv_merge *m, uint64_t addr);
    void (*added)(struct bkv_merge *m, uint64_t addr);
    bool (*must_rewrite)(struct bkv_merge *m, uint64_t addr);
};
int bkv_tree_merge(struct rt_task *t, struct bkv_tree *tree, const struct bkv_memtab *frozen,
                   struct bkv_merge *m, struct bkv_tree **out_tree);

/** The fences as bytes of a checkpoint, and back. Nothing is trusted: -EBADMSG. */
uint64_t bkv_tree_encoded_bytes(const struct bkv_tree *tree);
/** Encodes from position *pos (0 first) on until `room` (4096 at least) is used; returns bytes
 * written, 0 at the end. All calls together write bkv_tree_encoded_bytes(). */
size_t bkv_tree_encode(const struct bkv_tree *tree, uint64_t *pos, uint8_t *out, size_t room);
struct bkv_tree_decoder;
struct bkv_tree_decoder *bkv_tree_decoder_new(struct bkv_tree_io *io);
int bkv_tree_decode(struct bkv_tree_decoder *d, const uint8_t *in, size_t len);
/** The end of the bytes: the tree, or -EBADMSG, -ENOMEM. Frees the decoder either way (NULL out:
 * only that). */
int bkv_tree_decoded(struct bkv_tree_decoder *d, struct bkv_tree **out_tree);

/**
 * Walks keys in order through up to two memtables and a tree: the newest place of each key, deleted
 * ones left out. Stays right while memtables change, as long as the sources are the same ones;
 * leaves are read ahead (up to `ahead`, 1 to 32, at once). The cursor keeps the tree. NULL: no
 * memory.
 */
struct bkv_cursor;
struct bkv_cursor *bkv_cursor_new(const struct bkv_memtab *active, const struct bkv_memtab *frozen,
                                  struct bkv_tree *tree, unsigned ahead);
void bkv_cursor_free(struct bkv_cursor *c);
void bkv_cursor_seek(struct bkv_cursor *c, struct bytes key, bool after);
/** Other sources: goes on behind the key that was given out last, or where seek has led. With tree
 * NULL it has none and keeps nothing but memory: what comes next is another use, and a seek. */
void bkv_cursor_use(struct bkv_cursor *c, const struct bkv_memtab *active,
                    const struct bkv_memtab *frozen, struct bkv_tree *tree);
/** 1 and the next key (good until the next call), 0 at the end, or an errno. May wait. */
int bkv_cursor_next(struct rt_task *t, struct bkv_cursor *c, struct bytes *out_key,
                    struct bkv_place *out_place);
/** The same in two halves, for those whose sources may be others after a wait. step: as next, but
 * -EAGAIN when a leaf has to be read first, or many deleted keys have been passed. load: reads it
 * and some that follow, or yields; touches no memtable. */
int bkv_cursor_step(struct bkv_cursor *c, struct bytes *out_key, struct bkv_place *out_place);
int bkv_cursor_load(struct rt_task *t, struct bkv_cursor *c);
/** After a step that gave out a key with `prefix`: keys that follow it in one leaf and have the
 * prefix, many at once, as bkv_leaf_run() gives them. How many, 0 too, says nothing about those
 * after: step does. Or -EBADMSG. */
int bkv_cursor_run(struct bkv_cursor *c, struct bytes prefix, uint8_t *buf, size_t max,
                   size_t *used);

#endif
