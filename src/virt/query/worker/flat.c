/* SPDX-License-Identifier: Apache-2.0 */
#include "virt/query/worker/flat.h"

#include <stdlib.h>
#include <string.h>

#define SIZE_MAX_BYTES ((size_t)1 << 30)

void flat_begin(struct flat *f)
{
    f->used = 0;
    f->failed = false;
}

void flat_free(struct flat *f)
{
    free(f->buf);
    *f = (struct flat){0};
}

static bool reserve(struct flat *f, size_t len)
{
    size_t size = f->size ? f->size : 4096;
    uint8_t *buf;

    if (f->failed || len > SIZE_MAX_BYTES || f->used + len > SIZE_MAX_BYTES) {
        f->failed = true;
        return false;
    }
    if (f->used + len <= f->size)
        return true;
    while (size < f->used + len)
        size *= 2;
    buf = malloc(size);
    if (!buf) {
        f->failed = true;
        return false;
    }
    if (f->used)
        memcpy(buf + size - f->used, f->buf + f->size - f->used, f->used);
    free(f->buf);
    f->buf = buf;
    f->size = size;
    return true;
}

static void push(struct flat *f, const void *data, size_t len)
{
    if (!reserve(f, len))
        return;
    f->used += len;
    if (len)
        memcpy(f->buf + f->size - f->used, data, len);
}

/* Zeroes, so that what is `len` bytes long and comes next begins at a multiple of `align`. */
static void pad(struct flat *f, size_t align, size_t len)
{
    static const uint8_t zeroes[8];

    push(f, zeroes, (size_t) - (f->used + len) & (align - 1));
}

static void push_u32(struct flat *f, uint32_t v)
{
    pad(f, 4, 4);
    push(f, &v, 4);
}

static void push_ref(struct flat *f, uint32_t ref)
{
    pad(f, 4, 4);
    push_u32(f, (uint32_t)f->used + 4 - ref);
}

uint32_t flat_string(struct flat *f, const char *s, size_t len)
{
    pad(f, 4, len + 1);
    push(f, "", 1);
    push(f, s, len);
    push_u32(f, (uint32_t)len);
    return (uint32_t)f->used;
}

uint32_t flat_refs(struct flat *f, const uint32_t *refs, size_t n)
{
    pad(f, 4, n * 4);
    for (size_t i = n; i-- > 0;)
        push_ref(f, refs[i]);
    push_u32(f, (uint32_t)n);
    return (uint32_t)f->used;
}

static uint32_t vector(struct flat *f, const void *data, size_t align, size_t len, size_t n)
{
    pad(f, align, len);
    push(f, data, len);
    push_u32(f, (uint32_t)n);
    return (uint32_t)f->used;
}

uint32_t flat_structs(struct flat *f, const int64_t *data, unsigned words, size_t n)
{
    return vector(f, data, 8, n * words * 8, n);
}

uint32_t flat_i32s(struct flat *f, const int32_t *data, size_t n)
{
    return vector(f, data, 4, n * 4, n);
}

void flat_table_begin(struct flat *f, struct flat_table *t)
{
    *t = (struct flat_table){.start = (uint32_t)f->used};
}

static void field(struct flat *f, struct flat_table *t, unsigned id, const void *v, size_t len)
{
    pad(f, len, len);
    push(f, v, len);
    t->at[id] = (uint32_t)f->used;
    if (id >= t->n)
        t->n = id + 1;
}

void flat_u8(struct flat *f, struct flat_table *t, unsigned id, uint8_t v)
{
    field(f, t, id, &v, sizeof(v));
}

void flat_i16(struct flat *f, struct flat_table *t, unsigned id, int16_t v)
{
    field(f, t, id, &v, sizeof(v));
}

void flat_i32(struct flat *f, struct flat_table *t, unsigned id, int32_t v)
{
    field(f, t, id, &v, sizeof(v));
}

void flat_i64(struct flat *f, struct flat_table *t, unsigned id, int64_t v)
{
    field(f, t, id, &v, sizeof(v));
}

void flat_ref(struct flat *f, struct flat_table *t, unsigned id, uint32_t ref)
{
    uint32_t v;

    pad(f, 4, 4);
    v = (uint32_t)f->used + 4 - ref;
    field(f, t, id, &v, sizeof(v));
}

uint32_t flat_table_end(struct flat *f, struct flat_table *t)
{
    uint16_t vtable[2 + FLAT_FIELDS_MAX] = {0};
    size_t len = (2 + t->n) * sizeof(vtable[0]);
    uint32_t table, distance;

    push_u32(f, 0); /* the distance to the vtable, below */
    table = (uint32_t)f->used;
    vtable[0] = (uint16_t)len;
    vtable[1] = (uint16_t)(table - t->start);
    for (unsigned i = 0; i < t->n; i++)
        vtable[2 + i] = t->at[i] ? (uint16_t)(table - t->at[i]) : 0;
    push(f, vtable, len); /* 2 bytes are all it has to be aligned to */
    distance = (uint32_t)f->used - table;
    if (!f->failed)
        memcpy(f->buf + f->size - table, &distance, sizeof(distance));
    return table;
}

const void *flat_finish(struct flat *f, uint32_t root, size_t *out_len)
{
    pad(f, 8, 4);
    push_ref(f, root);
    *out_len = f->used;
    return f->failed ? NULL : f->buf + f->size - f->used;
}
