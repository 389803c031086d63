/* SPDX-License-Identifier: Apache-2.0 */
/* The collector's parts: which segment (gc.c), and getting what lives out of it (move.c). */
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
/** Between two blocks: lets others go first, the longer the less the space is needed. */
void bkv_collector_pace(struct rt_task *t, struct bkv *s);

#endif
