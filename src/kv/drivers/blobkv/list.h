/* SPDX-License-Identifier: Apache-2.0 */
/* KV_LIST: keys in order. */
#ifndef KVASIR_KV_BLOBKV_LIST_H
#define KVASIR_KV_BLOBKV_LIST_H

#include "kv/drivers/blobkv/blobkv.h"

#define BKV_LISTS_MAX 16u /* at work at the same time; others wait in line */

int bkv_lists_init(struct bkv *s);
/** Nothing is under way (or the store is abandoned). */
void bkv_lists_fini(struct bkv *s);
void bkv_list_submit(struct bkv *s, struct kv_req *kv);

#endif
