/* SPDX-License-Identifier: Apache-2.0 */
/* The collector's parts: which segment (gc.c), and getting what lives out of it (move.c,
 * cold.c). */
#ifndef KVASIR_KV_BLOBKV_GC_H
#define KVASIR_KV_BLOBKV_GC_H

#include "kv/drivers/blobkv/blobkv.h"

struct bkv_mover;
struct bkv_mover *bkv_mover_new(struct bkv *s);
void bkv_mover_free(struct bkv_mover *m);
/** Waits for what it reads ahead; before it is freed. */
void bkv_mover_settle(struct rt_task *t, struct bkv_mover *m);
/** Moves what lives out of a sealed segment of the log. Reads `next` (0: none) ahead, which will
 * probably be asked for then. 0; -EBADMSG it is damaged; -ENOSPC; ... */
int bkv_move_segment(struct rt_task *t, struct bkv_mover *m, uint32_t idx, uint32_t next);
/* cold.c: where it moves to. */
/** The cold segment that is open has room for `len` bytes then, or another one is. Waits. */
int bkv_cold_room(struct rt_task *t, struct bkv *s, uint32_t len);
/** Writes a block where the stream ends, which stays as it is. `block` has a sector before it. */
int bkv_cold_write(struct rt_task *t, struct bkv *s, uint8_t *block, uint32_t len);

/** How far the collector was in a segment, and what it had moved, when it was paced last. */
struct bkv_pace {
    uint32_t off;
    uint64_t moved;
};
static inline struct bkv_pace bkv_pace_begin(const struct bkv *s)
{
    return (struct bkv_pace){.moved = s->stats.moved_bytes};
}
/** Between two steps, with the segment done with up to `off`: lets others go first, the longer the
 * more it has gained and the less that is needed. */
void bkv_collector_pace(struct rt_task *t, struct bkv *s, struct bkv_pace *p, uint32_t off);

#endif
