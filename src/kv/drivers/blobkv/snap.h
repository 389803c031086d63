/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: the tree of a checkpoint, kept, and a hold on all segments in use then, so that what
 * it refers to stays where it is, whatever is stored, deleted and collected later. What that keeps
 * from being used again has a limit (snapshot_pin=), and may have one in time (snapshot_max_age=):
 * beyond them the oldest snapshot goes stale, and answers -ESTALE from then on.
 */
#ifndef KVASIR_KV_BLOBKV_SNAP_H
#define KVASIR_KV_BLOBKV_SNAP_H

#include "kv/drivers/blobkv/blobkv.h"

struct bkv_snap {
    struct list link; /* bkv.snaps, oldest first, until it is closed */
    struct bkv *s;
    struct bkv_hold hold;
    struct bkv_tree *tree; /* NULL: let go of */
    uint64_t opened_ns;
    unsigned users; /* operations that go through it */
    bool present;   /* of a store that nobody changes: the present itself */
    bool stale;
    bool closed;
};

/* What the user of several shards holds: a snapshot of each, of one instant. */
struct bkv_cut {
    struct bkv_fan *close; /* what ending it takes */
    struct bkv_snap *snap[BKV_SHARDS_MAX];
};

/** The snapshot of a request; NULL: it is about the present. */
static inline struct bkv_snap *bkv_snap_of(const struct kv_req *kv)
{
    struct bkv_snap *snap = (struct bkv_snap *)kv->snap;

    if (snap != NULL && bkv_of(kv)->nshards > 1)
        snap = ((struct bkv_cut *)kv->snap)->snap[bkv_of(kv)->shard];
    return snap == NULL || snap->present ? NULL : snap;
}

void bkv_snap_submit(struct bkv *s, struct kv_req *kv); /* KV_SNAP_OPEN, KV_SNAP_CLOSE */
/** One of this shard, for a cut: `stop` (or NULL) as bkv_checkpoint() has it. */
int bkv_snap_make(struct rt_task *t, struct bkv *s, struct bkv_stop *stop,
                  struct bkv_snap **out_snap);
void bkv_snap_end(struct bkv_snap *snap);
void bkv_snap_get_submit(struct bkv *s, struct kv_req *kv); /* KV_RETRIEVE, KV_STAT through one */

/** One of the engine's own: as it was when `at` was called (see bkv_checkpoint_seen()). */
int bkv_snap_take(struct rt_task *t, struct bkv *s, void (*at)(void *arg), void *arg,
                  struct bkv_snap **out_snap);

/** Nothing of it is used again until the user leaves. 0, or -ESTALE. */
int bkv_snap_enter(struct bkv_snap *snap);
void bkv_snap_leave(struct bkv_snap *snap);
/** As bkv_read_key(), as of the snapshot, which the caller has entered; NULL: now. */
int bkv_snap_read_key(struct rt_task *t, struct bkv *s, struct bkv_snap *snap, struct bytes key,
                      struct bkv_place *out_place, struct rt_buf **out_buf,
                      struct bkv_record_out *out);

/** Segments have become free: those that cost too much go stale. */
void bkv_snaps_trim(struct bkv *s);
/** After a simulated crash: frees what is still open. */
void bkv_snaps_fini(struct bkv *s);

#endif
