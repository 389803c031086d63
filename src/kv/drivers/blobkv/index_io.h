/* SPDX-License-Identifier: Apache-2.0 */
/* How the index reaches the device: pages of its stream. Only the checkpointer appends. */
#ifndef KVASIR_KV_BLOBKV_INDEX_IO_H
#define KVASIR_KV_BLOBKV_INDEX_IO_H

#include "kv/drivers/blobkv/blobkv.h"

/** A run of at most `max` pages at the end of the stream; opens a segment when needed. */
int bkv_index_place(struct rt_task *t, struct bkv *s, uint32_t max, uint64_t *out_addr,
                    uint32_t *out_n);
/** Sets s->tree_io up. */
void bkv_index_io_init(struct bkv *s);

#endif
