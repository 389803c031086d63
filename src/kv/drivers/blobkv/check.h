/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifies a store, also while it is served: super slots, heads of segments, every leaf and fence,
 * every record that the index or a memtable names (place, number, key, checksum), the chunks of
 * large values, and that the live bytes of each segment and the number of keys are exactly what is
 * referred to.
 *
 * A store that is open for writing is checked as of a snapshot, which begins with a checkpoint: all
 * that was acknowledged before is in its tree, and a hold keeps it where it is while others store,
 * delete, checkpoint and collect. What the accounts were at that instant is copied then. Of a store
 * that is open for reading the present is checked: the tree, and what the log has since.
 */
#ifndef KVASIR_KV_BLOBKV_CHECK_H
#define KVASIR_KV_BLOBKV_CHECK_H

#include "kv/drivers/blobkv/blobkv.h"

/** On the home reactor. As kv_check(); -ESTALE the store changed so fast that the snapshot kept too
 * much (snapshot_pin=); -ECANCELED it is being closed; -ENOSPC, -EIO no checkpoint can be made. */
int bkv_check(struct rt_task *t, struct bkv *s, const struct kv_check_opts *opts,
              struct kv_check_report *out);

/* --- the parts: check.c and check_value.c ----------------------------------------------------- */

/* Who refers to a record: the accounts are kept apart. */
enum bkv_ck_who { BKV_CK_TREE, BKV_CK_MEM, BKV_CK_WHOS };

/* A segment as of the instant that is checked. */
struct bkv_ck_seg {
    uint64_t order;
    uint32_t gen, end, live;
    uint8_t state, stream;
};

struct bkv_ck {
    struct bkv *s;
    struct bkv_snap *snap;       /* NULL: the present, of a store that nobody changes */
    const struct bkv_tree *tree;
    struct bkv_super super;
    struct bkv_ck_seg *seg;      /* nsegs of them */
    uint32_t nsegs;
    const struct kv_check_opts *opts;
    struct kv_check_report *rep;
    uint64_t *refs; /* BKV_CK_WHOS per segment: bytes referred to */
    uint64_t nkeys;
    uint8_t *page;    /* BKV_PAGE_BYTES */
    uint8_t *buf;     /* BKV_CHUNK_HEAD_MAX + BKV_CHUNK_MAX, or a segment, whichever is more */
    uint8_t *value;   /* BKV_INLINE_MAX */
    uint8_t *key;     /* BKV_KEY_MAX: of the leaf's iterator */
    uint8_t *last;    /* the key before, and its length */
    uint32_t last_len;
    uint8_t *scratch; /* BKV_SCRATCH_BYTES */
    char text[320];
};

void bkv_ck_say(struct bkv_ck *ck, enum kv_severity severity, const char *structure, uint64_t off,
                struct bytes key, const char *fmt, ...) PRINTF_LIKE(6, 7);
/** Counts [addr, addr + len) as referred to. False (and a finding) when it is not inside of one
 * segment that is in use, of one of two streams. */
bool bkv_ck_ref(struct bkv_ck *ck, enum bkv_ck_who who, const char *structure, struct bytes key,
                uint64_t addr, uint32_t len, enum bkv_stream one, enum bkv_stream two);
/** The record of `key` at a place, and what it refers to. 0; -EIO and so on. */
int bkv_ck_record(struct rt_task *t, struct bkv_ck *ck, enum bkv_ck_who who, struct bytes key,
                  const struct bkv_place *place);
/** Only what a LARGE record that nobody refers to any more still counts for. */
int bkv_ck_drop(struct rt_task *t, struct bkv_ck *ck, const struct bkv_drop *drop);

#endif
