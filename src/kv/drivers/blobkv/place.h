/* SPDX-License-Identifier: Apache-2.0 */
/* Where the current version of a key is, and what is known of it without reading it. */
#ifndef KVASIR_KV_BLOBKV_PLACE_H
#define KVASIR_KV_BLOBKV_PLACE_H

#include "base/bytes.h"

struct bkv_place {
    uint64_t addr;      /* of the record, in the blob */
    uint64_t seq;       /* its number: the version */
    uint64_t value_len; /* as the user knows it */
    uint32_t rec_len;   /* bytes of the record in the segment, a multiple of 16 */
    uint8_t type;       /* enum bkv_type; BKV_DELETE only in memtables */
};

/** A key's hash: SipHash under the store's secret, so that nobody outside can aim at one bucket. */
uint64_t bkv_key_hash(const uint64_t secret[2], struct bytes key);

#endif
