/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/place.h"

#include "base/map.h"

uint64_t bkv_key_hash(const uint64_t secret[2], struct bytes key)
{
    return hash_bytes_keyed(secret[0], secret[1], key);
}
