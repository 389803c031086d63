/* SPDX-License-Identifier: Apache-2.0 */
/* The messages' frames and what is refused; tests/query has Arrow's own library read the rest. */
#include "virt/query/worker/arrow.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint8_t out[64 << 10];
static size_t out_len;
static size_t room; /* put() fails when it is used up */

static int put(void *arg, const void *buf, size_t len)
{
    (void)arg;
    if (out_len + len > room)
        return -EDQUOT;
    memcpy(out + out_len, buf, len);
    out_len += len;
    return 0;
}

static struct arrow_writer *writer(void)
{
    static struct arrow_writer w;

    w = (struct arrow_writer){.put = put};
    out_len = 0;
    room = sizeof(out);
    return &w;
}

/* --- reading back, as FlatBuffers says --- */

static uint32_t u32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return v;
}

static int64_t i64(const uint8_t *p)
{
    int64_t v;

    assert_true((uintptr_t)(p - out) % 8 == 0);
    memcpy(&v, p, 8);
    return v;
}

/* The place of a field of a table, or NULL. */
static const uint8_t *field(const uint8_t *table, unsigned id)
{
    const uint8_t *vtable = table - (int32_t)u32(table);
    uint16_t size, at;

    memcpy(&size, vtable, 2);
    if (4 + 2 * id >= size)
        return NULL;
    memcpy(&at, vtable + 4 + 2 * (size_t)id, 2);
    return at ? table + at : NULL;
}

static const uint8_t *follow(const uint8_t *p)
{
    assert_non_null(p);
    return p + u32(p);
}

/* The message at `at`: its table, its body's length, and where the next one is. */
static const uint8_t *message(size_t at, int64_t *out_body, size_t *out_next)
{
    const uint8_t *table;

    assert_int_equal(at % 8, 0);
    assert_int_equal(u32(out + at), UINT32_MAX);
    assert_int_equal(u32(out + at + 4) % 8, 0);
    table = out + at + 8 + u32(out + at + 8);
    *out_body = i64(field(table, 3));
    *out_next = at + 8 + u32(out + at + 4) + (size_t)*out_body;
    assert_true(*out_next <= out_len);
    return table;
}

/* --- columns --- */

static struct ArrowSchema *schema_of(struct ArrowSchema *columns, int64_t n)
{
    static struct ArrowSchema root, *children[8];

    for (int64_t i = 0; i < n; i++)
        children[i] = &columns[i];
    root = (struct ArrowSchema){.format = "+s", .n_children = n, .children = children};
    return &root;
}

static struct ArrowArray *batch_of(struct ArrowArray *columns, int64_t n, int64_t length)
{
    static struct ArrowArray root;
    static struct ArrowArray *children[8];
    static const void *buffers[1];

    for (int64_t i = 0; i < n; i++)
        children[i] = &columns[i];
    root = (struct ArrowArray){.length = length,
                               .n_buffers = 1,
                               .buffers = buffers,
                               .n_children = n,
                               .children = children};
    return &root;
}

static const int32_t offsets[] = {0, 3, 3, 8};
static const uint8_t valid[] = {5};
static const void *text_buffers[] = {valid, offsets, "onethree"};
static const int64_t numbers[] = {1, -2, 3};
static const void *number_buffers[] = {NULL, numbers};

static void test_schema_and_batch(void **state)
{
    struct ArrowSchema columns[] = {{.format = "u", .name = "word", .flags = ARROW_FLAG_NULLABLE},
                                    {.format = "l", .name = "number"}};
    struct ArrowArray arrays[] = {
        {.length = 3, .null_count = -1, .n_buffers = 3, .buffers = text_buffers},
        {.length = 3, .n_buffers = 2, .buffers = number_buffers}};
    struct ArrowSchema *schema = schema_of(columns, 2);
    struct arrow_writer *w = writer();
    const uint8_t *m, *batch, *nodes, *buffers, *body;
    int64_t len;
    size_t next, at;

    assert_int_equal(arrow_put_schema(w, schema), 0);
    assert_int_equal(arrow_put_batch(w, schema, batch_of(arrays, 2, 3)), 0);
    assert_int_equal(arrow_put_end(w), 0);
    m = message(0, &len, &at);
    assert_int_equal(len, 0);
    assert_int_equal(*field(m, 1), 1); /* Schema */
    m = follow(field(follow(field(m, 2)), 1));
    assert_int_equal(u32(m), 2); /* fields */
    m = follow(m + 4);
    assert_string_equal((const char *)follow(field(m, 0)) + 4, "word");
    assert_int_equal(*field(m, 1), 1); /* nullable */
    assert_int_equal(*field(m, 2), 5); /* Utf8 */

    m = message(at, &len, &next);
    assert_int_equal(*field(m, 1), 3); /* RecordBatch */
    batch = follow(field(m, 2));
    assert_int_equal(i64(field(batch, 0)), 3);
    nodes = follow(field(batch, 1));
    assert_int_equal(u32(nodes), 2);
    assert_int_equal(i64(nodes + 4), 3);
    assert_int_equal(i64(nodes + 12), 1); /* NULL, counted here */
    buffers = follow(field(batch, 2));
    assert_int_equal(u32(buffers), 5);
    body = out + next - len;
    assert_memory_equal(body + i64(buffers + 4 + 16), offsets, sizeof(offsets));
    assert_memory_equal(body + i64(buffers + 4 + 32), "onethree", 8);
    assert_int_equal(i64(buffers + 4 + 56), 0); /* no validity: none is NULL */
    assert_memory_equal(body + i64(buffers + 4 + 64), numbers, sizeof(numbers));
    assert_int_equal(out_len, next + 8);
    assert_int_equal(u32(out + next + 4), 0); /* the end */
    arrow_writer_free(w);
}

static void test_dictionary_comes_first(void **state)
{
    static const uint8_t codes[] = {1, 0, 1};
    static const void *buffers[] = {NULL, codes};
    struct ArrowSchema names = {.format = "u"};
    struct ArrowSchema column = {.format = "C", .name = "e", .dictionary = &names};
    struct ArrowArray words = {.length = 3, .n_buffers = 3, .buffers = text_buffers};
    struct ArrowArray array = {
        .length = 3, .n_buffers = 2, .buffers = buffers, .dictionary = &words};
    struct ArrowSchema *schema = schema_of(&column, 1);
    struct arrow_writer *w = writer();
    const uint8_t *m;
    int64_t len;
    size_t at;

    assert_int_equal(arrow_put_schema(w, schema), 0);
    m = message(0, &len, &at);
    m = follow(field(follow(field(m, 2)), 1)); /* its fields */
    m = follow(m + 4);
    assert_int_equal(*field(m, 2), 5); /* Utf8: the type of the names */
    assert_non_null(field(m, 4));      /* DictionaryEncoding */
    assert_int_equal(arrow_put_dictionaries(w, schema, batch_of(&array, 1, 3)), 0);
    m = message(at, &len, &at);
    assert_int_equal(*field(m, 1), 2); /* DictionaryBatch */
    assert_int_equal(at, out_len);
    array.dictionary = NULL;
    assert_int_equal(arrow_put_dictionaries(w, schema, batch_of(&array, 1, 3)), -EIO);
    arrow_writer_free(w);
}

static void test_many_columns(void **state)
{
    enum { N = 1000 };
    static struct ArrowSchema columns[N], *children[N];
    struct ArrowSchema schema = {.format = "+s", .n_children = N, .children = children};
    struct arrow_writer *w = writer();
    const uint8_t *m;
    char last[8];
    int64_t len;
    size_t at;

    for (unsigned i = 0; i < N; i++) {
        columns[i] = (struct ArrowSchema){.format = "g", .name = "x"};
        children[i] = &columns[i];
    }
    snprintf(last, sizeof(last), "c%d", N);
    columns[N - 1].name = last;
    w->put = put;
    room = sizeof(out);
    assert_int_equal(arrow_put_schema(w, &schema), -EDQUOT); /* what put() said */
    columns[0].format = "vu";
    assert_int_equal(arrow_put_schema(w, &schema), -ENOTSUP);
    assert_non_null(strstr(w->text, "vu"));
    columns[0].format = "g";
    schema.n_children = 400;
    out_len = 0;
    assert_int_equal(arrow_put_schema(w, &schema), 0);
    m = message(0, &len, &at);
    m = follow(field(follow(field(m, 2)), 1));
    assert_int_equal(u32(m), 400);
    assert_string_equal((const char *)follow(field(follow(m + 4 * 400), 0)) + 4, "x");
    arrow_writer_free(w);
}

static void test_what_is_refused(void **state)
{
    static const char *const bad[] = {"",    "vu",   "vz",      "q",     "d:1", "d:9,2,77",
                                      "w:x", "tsx:", "d:9,2,3", "+w:-1", "+r",  "ll"};
    struct ArrowSchema column = {.format = "l", .name = "n"};
    struct ArrowArray array = {.length = 3, .n_buffers = 2, .buffers = number_buffers, .offset = 1};
    struct arrow_writer *w = writer();

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ArrowSchema c = {.format = bad[i], .name = "n"};

        assert_int_equal(arrow_put_schema(w, schema_of(&c, 1)), -ENOTSUP);
    }
    assert_int_equal(arrow_put_batch(w, schema_of(&column, 1), batch_of(&array, 1, 3)), -EIO);
    array.offset = 0;
    array.n_buffers = 1;
    assert_int_equal(arrow_put_batch(w, schema_of(&column, 1), batch_of(&array, 1, 3)), -EIO);
    assert_int_equal(arrow_put_batch(w, schema_of(&column, 1), batch_of(&array, 0, 3)), -EIO);
    array.n_buffers = 2;
    out_len = room;
    assert_int_equal(arrow_put_batch(w, schema_of(&column, 1), batch_of(&array, 1, 3)), -EDQUOT);
    arrow_writer_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schema_and_batch),
        cmocka_unit_test(test_dictionary_comes_first),
        cmocka_unit_test(test_many_columns),
        cmocka_unit_test(test_what_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
