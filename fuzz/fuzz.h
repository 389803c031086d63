/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets share: the entry point and a way to cut the input up. */
#ifndef KVASIR_FUZZ_FUZZ_H
#define KVASIR_FUZZ_FUZZ_H

#include "base/bytes.h"
#include "base/must.h"
#include "base/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct input {
    const uint8_t *at;
    size_t left;
};

/** The next min(len, left) bytes, in memory of exactly that size, so that ASan sees every step
 * beyond them. The caller frees. Never NULL. */
static inline uint8_t *input_take(struct input *in, size_t len, size_t *out_len)
{
    size_t n = MIN(len, in->left);
    uint8_t *copy = malloc(n > 0 ? n : 1);

    must(copy != NULL);
    if (n > 0)
        memcpy(copy, in->at, n);
    in->at += n;
    in->left -= n;
    *out_len = n;
    return copy;
}

/** Fills `out` with the next bytes, zeroes where there are none. */
static inline void input_fill(struct input *in, void *out, size_t len)
{
    size_t n = MIN(len, in->left);

    memset(out, 0, len);
    if (n > 0)
        memcpy(out, in->at, n);
    in->at += n;
    in->left -= n;
}

static inline uint8_t input_u8(struct input *in)
{
    uint8_t v;

    input_fill(in, &v, 1);
    return v;
}

#endif
