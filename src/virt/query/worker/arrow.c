/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers are those of Arrow's Schema.fbs and Message.fbs: tables, fields by their ids. */
#include "virt/query/worker/arrow.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { METADATA_V5 = 4 };
enum { HEADER_SCHEMA = 1, HEADER_DICTIONARY = 2, HEADER_BATCH = 3 };

enum type_id {
    TYPE_NULL = 1,
    TYPE_INT,
    TYPE_FLOAT,
    TYPE_BINARY,
    TYPE_UTF8,
    TYPE_BOOL,
    TYPE_DECIMAL,
    TYPE_DATE,
    TYPE_TIME,
    TYPE_TIMESTAMP,
    TYPE_INTERVAL,
    TYPE_LIST,
    TYPE_STRUCT,
    TYPE_UNION,
    TYPE_FIXED_BINARY,
    TYPE_FIXED_LIST,
    TYPE_MAP,
    TYPE_DURATION,
    TYPE_LARGE_BINARY,
    TYPE_LARGE_UTF8,
    TYPE_LARGE_LIST,
};

enum layout { /* what buffers an array of the type has */
              LAYOUT_NONE,
              LAYOUT_FIXED,  /* validity, values of `bits` */
              LAYOUT_BYTES,  /* validity, offsets of `bits`, bytes */
              LAYOUT_LIST,   /* validity, offsets of `bits` */
              LAYOUT_PLAIN,  /* validity; children are as long, or a multiple */
              LAYOUT_SPARSE, /* type ids of 8 bits */
              LAYOUT_DENSE,  /* type ids, offsets of 32 bits */
};

struct type {
    uint8_t id; /* enum type_id */
    enum layout layout;
    unsigned bits;
    int a, b;         /* its parameters, as it needs them */
    const char *text; /* a time zone, the ids of a union */
};

struct arrow_part {
    const void *data;
    size_t len;
};

__attribute__((format(printf, 3, 4))) static int fail(struct arrow_writer *w, int rc,
                                                      const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(w->text, sizeof(w->text), fmt, ap);
    va_end(ap);
    return rc;
}

/* --- types --- */

static const struct {
    const char *format;
    struct type type;
} simple[] = {
    {"n", {TYPE_NULL, LAYOUT_NONE, 0, 0, 0, NULL}},
    {"b", {TYPE_BOOL, LAYOUT_FIXED, 1, 0, 0, NULL}},
    {"c", {TYPE_INT, LAYOUT_FIXED, 8, 8, 1, NULL}},
    {"C", {TYPE_INT, LAYOUT_FIXED, 8, 8, 0, NULL}},
    {"s", {TYPE_INT, LAYOUT_FIXED, 16, 16, 1, NULL}},
    {"S", {TYPE_INT, LAYOUT_FIXED, 16, 16, 0, NULL}},
    {"i", {TYPE_INT, LAYOUT_FIXED, 32, 32, 1, NULL}},
    {"I", {TYPE_INT, LAYOUT_FIXED, 32, 32, 0, NULL}},
    {"l", {TYPE_INT, LAYOUT_FIXED, 64, 64, 1, NULL}},
    {"L", {TYPE_INT, LAYOUT_FIXED, 64, 64, 0, NULL}},
    {"e", {TYPE_FLOAT, LAYOUT_FIXED, 16, 0, 0, NULL}},
    {"f", {TYPE_FLOAT, LAYOUT_FIXED, 32, 1, 0, NULL}},
    {"g", {TYPE_FLOAT, LAYOUT_FIXED, 64, 2, 0, NULL}},
    {"z", {TYPE_BINARY, LAYOUT_BYTES, 32, 0, 0, NULL}},
    {"Z", {TYPE_LARGE_BINARY, LAYOUT_BYTES, 64, 0, 0, NULL}},
    {"u", {TYPE_UTF8, LAYOUT_BYTES, 32, 0, 0, NULL}},
    {"U", {TYPE_LARGE_UTF8, LAYOUT_BYTES, 64, 0, 0, NULL}},
    {"tdD", {TYPE_DATE, LAYOUT_FIXED, 32, 0, 0, NULL}},
    {"tdm", {TYPE_DATE, LAYOUT_FIXED, 64, 1, 0, NULL}},
    {"tts", {TYPE_TIME, LAYOUT_FIXED, 32, 0, 32, NULL}},
    {"ttm", {TYPE_TIME, LAYOUT_FIXED, 32, 1, 32, NULL}},
    {"ttu", {TYPE_TIME, LAYOUT_FIXED, 64, 2, 64, NULL}},
    {"ttn", {TYPE_TIME, LAYOUT_FIXED, 64, 3, 64, NULL}},
    {"tDs", {TYPE_DURATION, LAYOUT_FIXED, 64, 0, 0, NULL}},
    {"tDm", {TYPE_DURATION, LAYOUT_FIXED, 64, 1, 0, NULL}},
    {"tDu", {TYPE_DURATION, LAYOUT_FIXED, 64, 2, 0, NULL}},
    {"tDn", {TYPE_DURATION, LAYOUT_FIXED, 64, 3, 0, NULL}},
    {"tiM", {TYPE_INTERVAL, LAYOUT_FIXED, 32, 0, 0, NULL}},
    {"tiD", {TYPE_INTERVAL, LAYOUT_FIXED, 64, 1, 0, NULL}},
    {"tin", {TYPE_INTERVAL, LAYOUT_FIXED, 128, 2, 0, NULL}},
    {"+l", {TYPE_LIST, LAYOUT_LIST, 32, 0, 0, NULL}},
    {"+L", {TYPE_LARGE_LIST, LAYOUT_LIST, 64, 0, 0, NULL}},
    {"+s", {TYPE_STRUCT, LAYOUT_PLAIN, 0, 0, 0, NULL}},
    {"+m", {TYPE_MAP, LAYOUT_LIST, 32, 0, 0, NULL}},
};

static bool parse_parameters(const char *format, struct type *out)
{
    static const char units[] = "smun";
    int end = 0, bits = 128;
    struct type t = {0};

    if (format[0] == 't' && format[1] == 's' && format[2] && strchr(units, format[2]) &&
        format[3] == ':') {
        t = (struct type){
            TYPE_TIMESTAMP, LAYOUT_FIXED, 64, (int)(strchr(units, format[2]) - units), 0,
            format + 4};
        end = (int)strlen(format);
    } else if (sscanf(format, "d:%d,%d,%d%n", &t.a, &t.b, &bits, &end) == 3 ||
               sscanf(format, "d:%d,%d%n", &t.a, &t.b, &end) == 2) {
        t.id = TYPE_DECIMAL;
        t.layout = LAYOUT_FIXED;
        t.bits = (unsigned)bits;
        if (bits != 32 && bits != 64 && bits != 128 && bits != 256)
            return false;
    } else if (sscanf(format, "w:%d%n", &t.a, &end) == 1) {
        t.id = TYPE_FIXED_BINARY;
        t.layout = LAYOUT_FIXED;
        t.bits = (unsigned)t.a * 8;
    } else if (sscanf(format, "+w:%d%n", &t.a, &end) == 1) {
        t.id = TYPE_FIXED_LIST;
        t.layout = LAYOUT_PLAIN;
    } else if (strncmp(format, "+us:", 4) == 0 || strncmp(format, "+ud:", 4) == 0) {
        t.a = format[2] == 'd';
        t = (struct type){TYPE_UNION, t.a ? LAYOUT_DENSE : LAYOUT_SPARSE, 8, t.a, 0, format + 4};
        end = (int)strlen(format);
    }
    *out = t;
    return end > 0 && format[end] == '\0' && t.a >= 0;
}

static int parse_type(struct arrow_writer *w, const char *format, struct type *out)
{
    for (size_t i = 0; i < sizeof(simple) / sizeof(simple[0]); i++)
        if (strcmp(format, simple[i].format) == 0) {
            *out = simple[i].type;
            return 0;
        }
    if (parse_parameters(format, out))
        return 0;
    return fail(w, -ENOTSUP, "a column's type (%.60s) has no form here in Arrow: cast it", format);
}

static uint32_t put_union_ids(struct flat *f, const char *text)
{
    int32_t ids[128];
    size_t n = 0;

    while (*text && n < sizeof(ids) / sizeof(ids[0])) {
        char *end;

        ids[n++] = (int32_t)strtol(text, &end, 10);
        text = *end == ',' ? end + 1 : end + strlen(end);
    }
    return flat_i32s(f, ids, n);
}

static uint32_t put_type(struct flat *f, const struct type *t, const struct ArrowSchema *s)
{
    uint32_t ref = 0;
    struct flat_table table;

    if (t->id == TYPE_UNION)
        ref = put_union_ids(f, t->text);
    else if (t->text && t->text[0])
        ref = flat_string(f, t->text, strlen(t->text));
    flat_table_begin(f, &table);
    switch (t->id) {
    case TYPE_INT:
        flat_i32(f, &table, 0, t->a);
        flat_u8(f, &table, 1, (uint8_t)t->b);
        break;
    case TYPE_FLOAT:
    case TYPE_DATE:
    case TYPE_DURATION:
    case TYPE_INTERVAL:
        flat_i16(f, &table, 0, (int16_t)t->a);
        break;
    case TYPE_TIME:
        flat_i16(f, &table, 0, (int16_t)t->a);
        flat_i32(f, &table, 1, t->b);
        break;
    case TYPE_TIMESTAMP:
    case TYPE_UNION:
        flat_i16(f, &table, 0, (int16_t)t->a);
        if (ref)
            flat_ref(f, &table, 1, ref);
        break;
    case TYPE_DECIMAL:
        flat_i32(f, &table, 0, t->a);
        flat_i32(f, &table, 1, t->b);
        flat_i32(f, &table, 2, (int32_t)t->bits);
        break;
    case TYPE_FIXED_BINARY:
    case TYPE_FIXED_LIST:
        flat_i32(f, &table, 0, t->a);
        break;
    case TYPE_MAP:
        flat_u8(f, &table, 0, (s->flags & ARROW_FLAG_MAP_KEYS_SORTED) != 0);
        break;
    default:
        break;
    }
    return flat_table_end(f, &table);
}

/* --- the schema --- */

/* The C interface's form: a count, then lengths and bytes. */
static uint32_t put_metadata(struct arrow_writer *w, const char *m)
{
    struct flat *f = &w->flat;
    uint32_t refs[16], text[2];
    int32_t n, len;

    memcpy(&n, m, 4);
    m += 4;
    if (n > 16)
        n = 16;
    for (int32_t i = 0; i < n; i++) {
        struct flat_table table;

        for (unsigned k = 0; k < 2; k++) {
            memcpy(&len, m, 4);
            text[k] = flat_string(f, m + 4, (size_t)len);
            m += 4 + len;
        }
        flat_table_begin(f, &table);
        flat_ref(f, &table, 0, text[0]);
        flat_ref(f, &table, 1, text[1]);
        refs[i] = flat_table_end(f, &table);
    }
    return flat_refs(f, refs, n > 0 ? (size_t)n : 0);
}

static uint32_t put_encoding(struct flat *f, int64_t id, const struct type *index, bool ordered)
{
    struct flat_table table;
    uint32_t type = put_type(f, index, NULL);

    flat_table_begin(f, &table);
    flat_i64(f, &table, 0, id);
    flat_ref(f, &table, 1, type);
    flat_u8(f, &table, 2, ordered);
    return flat_table_end(f, &table);
}

static int put_fields(struct arrow_writer *w, const struct ArrowSchema *s, int64_t *dictionaries,
                      uint32_t *out_ref);

static int put_field(struct arrow_writer *w, const struct ArrowSchema *s, int64_t *dictionaries,
                     uint32_t *out_ref)
{
    struct flat *f = &w->flat;
    const struct ArrowSchema *values = s->dictionary ? s->dictionary : s;
    uint32_t name = flat_string(f, s->name ? s->name : "", s->name ? strlen(s->name) : 0);
    uint32_t type, children, encoding = 0, metadata = 0;
    struct flat_table table;
    struct type t, index;
    int rc = parse_type(w, values->format, &t);

    if (rc == 0 && s->dictionary) {
        rc = parse_type(w, s->format, &index);
        if (rc == 0)
            encoding = put_encoding(f, (*dictionaries)++, &index,
                                    (s->flags & ARROW_FLAG_DICTIONARY_ORDERED) != 0);
    }
    if (rc == 0)
        rc = put_fields(w, values, dictionaries, &children);
    if (rc < 0)
        return rc;
    type = put_type(f, &t, values);
    if (s->metadata)
        metadata = put_metadata(w, s->metadata);
    flat_table_begin(f, &table);
    flat_ref(f, &table, 0, name);
    flat_u8(f, &table, 1, (s->flags & ARROW_FLAG_NULLABLE) != 0);
    flat_u8(f, &table, 2, t.id);
    flat_ref(f, &table, 3, type);
    if (encoding)
        flat_ref(f, &table, 4, encoding);
    flat_ref(f, &table, 5, children);
    if (metadata)
        flat_ref(f, &table, 6, metadata);
    *out_ref = flat_table_end(f, &table);
    return 0;
}

static int put_fields(struct arrow_writer *w, const struct ArrowSchema *s, int64_t *dictionaries,
                      uint32_t *out_ref)
{
    uint32_t *refs = malloc(((size_t)s->n_children + 1) * sizeof(*refs));
    int rc = refs ? 0 : -ENOMEM;

    for (int64_t i = 0; rc == 0 && i < s->n_children; i++)
        rc = put_field(w, s->children[i], dictionaries, &refs[i]);
    if (rc == 0)
        *out_ref = flat_refs(&w->flat, refs, (size_t)s->n_children);
    free(refs);
    return rc;
}

/* --- messages --- */

static int put_padding(struct arrow_writer *w, size_t len)
{
    static const char zeroes[8];

    return len % 8 ? w->put(w->arg, zeroes, 8 - len % 8) : 0;
}

static int put_message(struct arrow_writer *w, uint8_t header_type, uint32_t header, size_t body)
{
    struct flat_table table;
    uint32_t prefix[2] = {UINT32_MAX, 0};
    const void *meta;
    size_t len;
    int rc;

    flat_table_begin(&w->flat, &table);
    flat_i64(&w->flat, &table, 3, (int64_t)body);
    flat_ref(&w->flat, &table, 2, header);
    flat_i16(&w->flat, &table, 0, METADATA_V5);
    flat_u8(&w->flat, &table, 1, header_type);
    meta = flat_finish(&w->flat, flat_table_end(&w->flat, &table), &len);
    if (!meta)
        return -ENOMEM;
    prefix[1] = (uint32_t)len; /* a multiple of 8, so the body begins at one */
    rc = w->put(w->arg, prefix, sizeof(prefix));
    return rc < 0 ? rc : w->put(w->arg, meta, len);
}

static int put_body(struct arrow_writer *w)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < w->nparts; i++) {
        if (w->parts[i].len)
            rc = w->put(w->arg, w->parts[i].data, w->parts[i].len);
        if (rc == 0)
            rc = put_padding(w, w->parts[i].len);
    }
    return rc;
}

int arrow_put_schema(struct arrow_writer *w, const struct ArrowSchema *schema)
{
    struct flat_table table;
    int64_t dictionaries = 0;
    uint32_t fields;
    int rc;

    flat_begin(&w->flat);
    rc = put_fields(w, schema, &dictionaries, &fields);
    if (rc < 0)
        return rc;
    flat_table_begin(&w->flat, &table);
    flat_i16(&w->flat, &table, 0, 0); /* little-endian */
    flat_ref(&w->flat, &table, 1, fields);
    return put_message(w, HEADER_SCHEMA, flat_table_end(&w->flat, &table), 0);
}

/* --- arrays --- */

static int add_part(struct arrow_writer *w, const void *data, size_t len)
{
    if (w->nparts == w->parts_size) {
        size_t size = w->parts_size ? 2 * w->parts_size : 64;
        struct arrow_part *p = realloc(w->parts, size * sizeof(*p));

        if (!p)
            return -ENOMEM;
        w->parts = p;
        w->parts_size = size;
    }
    w->parts[w->nparts++] = (struct arrow_part){data, data ? len : 0};
    return 0;
}

static int add_node(struct arrow_writer *w, int64_t length, int64_t nulls)
{
    if (w->nnodes == w->nodes_size) {
        size_t size = w->nodes_size ? 2 * w->nodes_size : 64;
        int64_t *p = realloc(w->nodes, size * 2 * sizeof(*p));

        if (!p)
            return -ENOMEM;
        w->nodes = p;
        w->nodes_size = size;
    }
    w->nodes[2 * w->nnodes] = length;
    w->nodes[2 * w->nnodes + 1] = nulls;
    w->nnodes++;
    return 0;
}

static int64_t count_nulls(const struct ArrowArray *a, const struct type *t)
{
    const uint8_t *valid = a->buffers[0];
    int64_t n = 0;

    if (a->null_count >= 0)
        return a->null_count;
    if (!valid || t->layout == LAYOUT_SPARSE || t->layout == LAYOUT_DENSE)
        return 0;
    for (int64_t i = 0; i < a->length; i++)
        n += !(valid[i / 8] >> (i % 8) & 1);
    return n;
}

static size_t last_offset(const struct ArrowArray *a, const struct type *t)
{
    if (!a->buffers[1])
        return 0;
    return t->bits == 64 ? (size_t)((const int64_t *)a->buffers[1])[a->length]
                         : (size_t)((const int32_t *)a->buffers[1])[a->length];
}

static int add_buffers(struct arrow_writer *w, const struct ArrowArray *a, const struct type *t)
{
    size_t n = (size_t)a->length;
    int rc;

    if (t->layout == LAYOUT_NONE)
        return 0;
    if (t->layout == LAYOUT_SPARSE || t->layout == LAYOUT_DENSE) {
        rc = add_part(w, a->buffers[0], n);
        return rc == 0 && t->layout == LAYOUT_DENSE ? add_part(w, a->buffers[1], 4 * n) : rc;
    }
    rc = add_part(w, a->null_count == 0 ? NULL : a->buffers[0], (n + 7) / 8);
    if (rc == 0 && t->layout == LAYOUT_FIXED)
        rc = add_part(w, a->buffers[1], (n * t->bits + 7) / 8);
    if (rc == 0 && (t->layout == LAYOUT_LIST || t->layout == LAYOUT_BYTES))
        rc = add_part(w, a->buffers[1], (n + 1) * t->bits / 8);
    if (rc == 0 && t->layout == LAYOUT_BYTES)
        rc = add_part(w, a->buffers[2], last_offset(a, t));
    return rc;
}

static int64_t buffers_of(const struct type *t)
{
    static const int64_t n[] = {0, 2, 3, 2, 1, 1, 2};

    return n[t->layout];
}

/* In the order of Arrow: an array, then its children. */
static int add_array(struct arrow_writer *w, const struct ArrowSchema *s,
                     const struct ArrowArray *a)
{
    struct type t;
    int rc = parse_type(w, s->format, &t);

    if (rc < 0)
        return rc;
    if (a->offset != 0 || a->length < 0 || a->n_buffers < buffers_of(&t) ||
        (!s->dictionary && a->n_children != s->n_children))
        return fail(w, -EIO, "the engine made an array that is not of its type (%.60s)", s->format);
    rc = add_node(w, a->length, t.layout == LAYOUT_NONE ? a->length : count_nulls(a, &t));
    if (rc == 0)
        rc = add_buffers(w, a, &t);
    for (int64_t i = 0; rc == 0 && !s->dictionary && i < s->n_children; i++)
        rc = add_array(w, s->children[i], a->children[i]);
    return rc;
}

static uint32_t put_batch_header(struct arrow_writer *w, int64_t length, size_t *out_body)
{
    int64_t *places = malloc((w->nparts + 1) * 2 * sizeof(*places));
    uint32_t nodes, buffers;
    struct flat_table table;
    size_t at = 0;

    if (!places) {
        w->flat.failed = true;
        return 0;
    }
    for (size_t i = 0; i < w->nparts; i++) {
        places[2 * i] = (int64_t)at;
        places[2 * i + 1] = (int64_t)w->parts[i].len;
        at += (w->parts[i].len + 7) & ~(size_t)7;
    }
    buffers = flat_structs(&w->flat, places, 2, w->nparts);
    nodes = flat_structs(&w->flat, w->nodes, 2, w->nnodes);
    free(places);
    flat_table_begin(&w->flat, &table);
    flat_i64(&w->flat, &table, 0, length);
    flat_ref(&w->flat, &table, 1, nodes);
    flat_ref(&w->flat, &table, 2, buffers);
    *out_body = at;
    return flat_table_end(&w->flat, &table);
}

static void begin_batch(struct arrow_writer *w)
{
    flat_begin(&w->flat);
    w->nparts = w->nnodes = 0;
}

static int put_dictionary(struct arrow_writer *w, const struct ArrowSchema *values,
                          const struct ArrowArray *array, int64_t id)
{
    struct flat_table table;
    uint32_t batch;
    size_t body;
    int rc;

    begin_batch(w);
    rc = add_array(w, values, array);
    if (rc < 0)
        return rc;
    batch = put_batch_header(w, array->length, &body);
    flat_table_begin(&w->flat, &table);
    flat_i64(&w->flat, &table, 0, id);
    flat_ref(&w->flat, &table, 1, batch);
    rc = put_message(w, HEADER_DICTIONARY, flat_table_end(&w->flat, &table), body);
    return rc < 0 ? rc : put_body(w);
}

/* In the order in which put_field() has numbered them. The values of an enum are texts: they have
 * no children. */
static int walk_dictionaries(struct arrow_writer *w, const struct ArrowSchema *s,
                             const struct ArrowArray *a, int64_t *next)
{
    int rc = 0;

    if (s->dictionary) {
        if (!a->dictionary)
            return fail(w, -EIO, "the engine made an enum without its names");
        return put_dictionary(w, s->dictionary, a->dictionary, (*next)++);
    }
    if (a->n_children != s->n_children)
        return fail(w, -EIO, "the engine made an array that is not of its type (%.60s)", s->format);
    for (int64_t i = 0; rc == 0 && i < s->n_children; i++)
        rc = walk_dictionaries(w, s->children[i], a->children[i], next);
    return rc;
}

int arrow_put_dictionaries(struct arrow_writer *w, const struct ArrowSchema *schema,
                           const struct ArrowArray *batch)
{
    int64_t next = 0;

    return walk_dictionaries(w, schema, batch, &next);
}

int arrow_put_batch(struct arrow_writer *w, const struct ArrowSchema *schema,
                    const struct ArrowArray *batch)
{
    uint32_t header;
    size_t body;
    int rc = 0;

    begin_batch(w);
    if (batch->n_children != schema->n_children)
        return fail(w, -EIO, "the engine made a batch of another number of columns");
    for (int64_t i = 0; rc == 0 && i < schema->n_children; i++)
        rc = add_array(w, schema->children[i], batch->children[i]);
    if (rc < 0)
        return rc;
    header = put_batch_header(w, batch->length, &body);
    rc = put_message(w, HEADER_BATCH, header, body);
    return rc < 0 ? rc : put_body(w);
}

int arrow_put_end(struct arrow_writer *w)
{
    static const uint32_t end[2] = {UINT32_MAX, 0};

    return w->put(w->arg, end, sizeof(end));
}

void arrow_writer_free(struct arrow_writer *w)
{
    flat_free(&w->flat);
    free(w->parts);
    free(w->nodes);
    /* Ready for another stream. */
    w->parts = NULL;
    w->nodes = NULL;
    w->parts_size = w->nodes_size = 0;
    w->nparts = w->nnodes = 0;
}
