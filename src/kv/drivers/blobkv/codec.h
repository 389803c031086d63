/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compression (zstd, lz4) and encryption at rest (AES-256-GCM by OpenSSL) of one store. A codec
 * without either is NULL everywhere. Nonces are the store's epoch (durable before the first use,
 * one more for each open that writes) and a counter, so that none comes twice after the log has
 * lost its tail. The key that encrypts data is random, and itself stored in the super slot wrapped
 * by the user's key, which comes from a file or a command and never from an argument.
 */
#ifndef KVASIR_KV_BLOBKV_CODEC_H
#define KVASIR_KV_BLOBKV_CODEC_H

#include "base/bytes.h"
#include "base/err.h"

#define BKV_CODEC_EXTRA 64u /* bytes a record may grow by */

struct bkv_codec;

#endif
