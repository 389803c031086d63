/* SPDX-License-Identifier: Apache-2.0 */
/* The question as a worker gets it, and its last word. */
#include "virt/query/service.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AHEAD_BYTES (64 * KIB)
#define MEMORY_KEY_MAX (256 * KIB) /* beyond it nothing is remembered */

static bool text_ok(struct bytes b)
{
    json_t *s;

    if (memchr(b.ptr != NULL ? b.ptr : (const uint8_t *)"", '\0', b.len) != NULL)
        return false;
    s = json_stringn((const char *)b.ptr, b.len);
    json_decref(s);
    return b.len == 0 || s != NULL;
}

int query_ask_check(const struct kv_select *q, struct err *why)
{
    if (q->sql.len == 0)
        return err_set(why, -EINVAL, "the statement is empty");
    if (q->sql.len > KV_SELECT_SQL_MAX)
        return err_set(why, -EINVAL, "the statement is longer than %u bytes", KV_SELECT_SQL_MAX);
    if (q->schema.len > KV_SELECT_SCHEMA_MAX)
        return err_set(why, -EINVAL, "the schema is longer than %u bytes", KV_SELECT_SCHEMA_MAX);
    if (q->nkeys > KV_SELECT_KEYS_MAX)
        return err_set(why, -EINVAL, "more than %u objects", KV_SELECT_KEYS_MAX);
    if (!text_ok(q->sql) || !text_ok(q->schema))
        return err_set(why, -EINVAL, "the statement or the schema is not UTF-8");
    if (q->input >= KV_SELECT_FORMATS || q->input == KV_SELECT_ARROW)
        return err_set(why, -EINVAL, "input is csv, json, jsonl, parquet or auto");
    if (q->output >= KV_SELECT_FORMATS || q->output == KV_SELECT_AUTO)
        return err_set(why, -EINVAL, "output is csv, json, jsonl, parquet or arrow");
    if ((unsigned char)q->delim > 0x7e || (unsigned char)q->quote > 0x7e ||
        (unsigned char)q->escape > 0x7e)
        return err_set(why, -EINVAL, "delimiter, quote and escape are ASCII characters");
    return 0;
}

static const char *header_name(enum kv_select_header h)
{
    return h == KV_SELECT_HEADER_YES ? "yes" : h == KV_SELECT_HEADER_NO ? "no" : "auto";
}

static json_t *objects_json(const struct query_run *run)
{
    json_t *a = json_array();
    char name[256];

    for (unsigned i = 0; a != NULL && i < run->nobjects; i++) {
        const struct query_object *o = &run->objects[i];

        query_key_text(o, name, sizeof(name));
        if (json_array_append_new(
                a, json_pack("{s:s, s:I}", "name", name, "size", (json_int_t)o->size)) != 0) {
            json_decref(a);
            return NULL;
        }
    }
    return a;
}

static char *query_text(const struct query_run *run, json_t *known)
{
    const struct kv_select *q = run->q;
    char delim[2] = {q->delim}, quote[2] = {q->quote}, escape[2] = {q->escape};
    json_t *j =
        json_pack("{s:s%, s:s, s:s, s:s, s:b, s:s, s:s, s:s, s:s%, s:o, s:o, s:I}", "sql",
                  (const char *)q->sql.ptr, q->sql.len, "input", kv_select_format_name(q->input),
                  "output", kv_select_format_name(q->output), "header", header_name(q->header),
                  "header_out", (int)q->header_out, "delim", delim, "quote", quote, "escape",
                  escape, "schema", q->schema.len > 0 ? (const char *)q->schema.ptr : "",
                  q->schema.len, "known", known != NULL ? known : json_null(), "objects",
                  objects_json(run), "ahead", (json_int_t)query_ask_ahead(run));
    char *text = j != NULL ? json_dumps(j, JSON_COMPACT) : NULL;

    json_decref(j);
    return text;
}

/* A small object is read whole, whatever is asked. */
uint32_t query_ask_ahead(const struct query_run *run)
{
    return run->nobjects == 1 && run->objects[0].size <= AHEAD_BYTES
               ? (uint32_t)run->objects[0].size
               : 0;
}

int query_ask_make(const struct query_run *run, char **out_text, size_t *out_len, struct err *why)
{
    json_t *known = run->known != NULL ? json_loads(run->known, 0, NULL) : NULL;
    char *text = query_text(run, known);

    /* Without what a worker has said before, it is found out again. */
    if (text != NULL && strlen(text) > QW_JSON_BYTES && known != NULL) {
        free(text);
        text = query_text(run, NULL);
    }
    if (text == NULL)
        return err_set(why, -ENOMEM, "no memory for the query");
    if (strlen(text) > QW_JSON_BYTES) {
        free(text);
        return err_set(why, -EINVAL,
                       "statement, schema and the names of the objects together are "
                       "longer than a query may be");
    }
    *out_text = text;
    *out_len = strlen(text);
    return 0;
}

/* A worker may say what it likes; only what query_select() promises gets further. */
static int rc_allowed(json_int_t rc)
{
    static const int ours[] = {EINVAL, ENOENT,  EBADMSG, ENOMEM, ETIMEDOUT, EDQUOT,
                               EAGAIN, ENOTSUP, EIO,     ESTALE, EPIPE};

    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        if (rc == -ours[i])
            return -ours[i];
    return rc == 0 ? 0 : -EIO;
}

void query_text_set(struct err *why, const char *text)
{
    size_t used = 0;

    if (why == NULL)
        return;
    for (; *text != '\0' && used + 1 < sizeof(why->text); text++) {
        unsigned char c = (unsigned char)*text;

        if (c >= ' ' && c != 0x7f)
            why->text[used++] = *text;
        else if (c == '\n' || c == '\t')
            why->text[used++] = *text;
    }
    /* Not half a character at the cut. */
    while (*text != '\0' && used > 0 && ((unsigned char)why->text[used - 1] & 0xc0) == 0x80)
        used--;
    if (*text != '\0' && used > 0 && (unsigned char)why->text[used - 1] >= 0xc0)
        used--;
    why->text[used] = '\0';
}

int query_ask_done(struct query_run *run, const char *text, size_t len)
{
    json_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    const char *said = json_string_value(json_object_get(j, "text"));
    json_t *rc_json = json_object_get(j, "rc"), *rows = json_object_get(j, "rows");
    int rc;

    if (!json_is_integer(rc_json)) {
        json_decref(j);
        return err_set(run->why, -EPIPE, "the worker's last word makes no sense");
    }
    rc = rc_allowed(json_integer_value(rc_json));
    if (rc == 0 && json_is_integer(rows) && json_integer_value(rows) >= 0)
        run->res->rows = (uint64_t)json_integer_value(rows);
    if (rc < 0)
        query_text_set(run->why, said != NULL && *said != '\0' ? said : err_str(rc));
    json_decref(j);
    return rc;
}

struct writer {
    uint8_t *buf;
    size_t used;
};

static void put(struct writer *w, const void *p, size_t len)
{
    if (len > 0)
        memcpy(w->buf + w->used, p, len);
    w->used += len;
}

int query_ask_memory_key(struct query_run *run)
{
    const struct kv_info *info = kv_info(kv_chan_dev(run->chan));
    const char *uri = kv_uri(kv_chan_dev(run->chan));
    const struct kv_select *q = run->q;
    uint8_t options[5] = {(uint8_t)q->input, (uint8_t)q->header, (uint8_t)q->delim,
                          (uint8_t)q->quote, (uint8_t)q->escape};
    size_t size =
        sizeof(info->uuid) + strlen(uri) + 1 + sizeof(options) + 8 + q->schema.len + q->who.len;
    le32 schema_len = le32_make((uint32_t)q->schema.len), who_len = le32_make((uint32_t)q->who.len);
    struct writer w = {NULL, 0};

    /* Without versions nobody knows whether it is the same object. */
    if ((info->caps & KV_CAP_VERSION) == 0)
        return 0;
    for (unsigned i = 0; i < run->nobjects; i++)
        size += 2 + run->objects[i].key_len + 16;
    if (size > MEMORY_KEY_MAX)
        return 0;
    w.buf = malloc(size);
    if (w.buf == NULL)
        return -ENOMEM;
    put(&w, info->uuid, sizeof(info->uuid));
    put(&w, uri, strlen(uri) + 1);
    put(&w, options, sizeof(options));
    put(&w, &schema_len, sizeof(schema_len)); /* what it leaves open is found out too */
    put(&w, q->schema.ptr, q->schema.len);
    /* A worker that somebody's statement has taken over would tell lies; to him alone. */
    put(&w, &who_len, sizeof(who_len));
    put(&w, q->who.ptr, q->who.len);
    for (unsigned i = 0; i < run->nobjects; i++) {
        const struct query_object *o = &run->objects[i];
        le16 len = le16_make((uint16_t)o->key_len);
        le64 numbers[2] = {le64_make(o->version), le64_make(o->size)};

        put(&w, &len, sizeof(len));
        put(&w, o->key, o->key_len);
        put(&w, numbers, sizeof(numbers));
    }
    run->memory_key = w.buf;
    run->memory_key_len = w.used;
    return 0;
}
