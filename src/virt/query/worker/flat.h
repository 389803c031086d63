/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes FlatBuffers, as far as the metadata of Arrow needs it. A buffer is written from its end
 * to its beginning, so that what a table points to is there before it. A reference is the
 * distance from the end. Memory that runs out is remembered: flat_finish() says so.
 */
#ifndef KVASIR_QUERY_WORKER_FLAT_H
#define KVASIR_QUERY_WORKER_FLAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLAT_FIELDS_MAX 8

struct flat {
    uint8_t *buf;
    size_t size, used; /* used: at the end of buf */
    bool failed;
};
struct flat_table {
    uint32_t at[FLAT_FIELDS_MAX];
    uint32_t start;
    unsigned n;
};

/** Empties it; the memory stays. The first time it has to be all zeroes. */
void flat_begin(struct flat *f);
void flat_free(struct flat *f);

uint32_t flat_string(struct flat *f, const char *s, size_t len);
uint32_t flat_refs(struct flat *f, const uint32_t *refs, size_t n);
/** `n` structs of 64-bit words, `words` each, in the byte order of the machine (little). */
uint32_t flat_structs(struct flat *f, const int64_t *data, unsigned words, size_t n);
uint32_t flat_i32s(struct flat *f, const int32_t *data, size_t n);

/** Fields go between; other tables, strings and vectors come before. */
void flat_table_begin(struct flat *f, struct flat_table *t);
void flat_u8(struct flat *f, struct flat_table *t, unsigned id, uint8_t v);
void flat_i16(struct flat *f, struct flat_table *t, unsigned id, int16_t v);
void flat_i32(struct flat *f, struct flat_table *t, unsigned id, int32_t v);
void flat_i64(struct flat *f, struct flat_table *t, unsigned id, int64_t v);
void flat_ref(struct flat *f, struct flat_table *t, unsigned id, uint32_t ref);
uint32_t flat_table_end(struct flat *f, struct flat_table *t);

/** The whole, a multiple of 8 bytes, good until flat_begin(); NULL: no memory, or over 1 GiB. */
const void *flat_finish(struct flat *f, uint32_t root, size_t *out_len);

#endif
