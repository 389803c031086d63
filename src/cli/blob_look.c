/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir blob show, check and dump: from raw bytes. */
#include "cli/blob.h"

#include "blob/dump.h"

#include <string.h>

/* --- show ------------------------------------------------------------------------------------- */

static void show_store(struct cli *c, const struct cli_blobs *list)
{
    const struct blob_check_report *r = &list->rep;
    const struct blob_raw_super *s = &r->super;
    const char *name = "", *uuid = "";
    json_t *obj;
    const char *key;
    json_t *v;

    for (size_t i = 0; i < list->n; i++) {
        if (list->blob[i].b.id == s->super_blob) {
            name = list->blob[i].name;
            uuid = list->blob[i].uuid;
        }
    }
    obj = json_pack(
        "{s:s%, s:s, s:s, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "type",
        s->bstype, strnlen((const char *)s->bstype, 16), "name", name, "uuid", uuid, "version",
        (json_int_t)s->version, "clean", r->clean, "bytes", (json_int_t)s->size_bytes,
        "block_bytes", (json_int_t)s->io_unit_bytes, "cluster_bytes", (json_int_t)s->cluster_bytes,
        "clusters", (json_int_t)(r->clusters - r->reserved_clusters), "free_clusters",
        (json_int_t)r->free_clusters, "md_page_bytes", (json_int_t)s->page_bytes, "md_pages",
        (json_int_t)r->md_pages, "used_md_pages", (json_int_t)r->used_md_pages, "blobs",
        (json_int_t)r->blobs, "super_blob", blob_cli_id(s->super_blob));
    if (c->json || obj == NULL) {
        cli_json(c, obj);
        return;
    }
    json_object_foreach(obj, key, v)
    {
        cli_print(c, "%-20s", key);
        if (json_is_integer(v))
            cli_print(c, "%lld\n", (long long)json_integer_value(v));
        else if (json_is_boolean(v))
            cli_print(c, "%s\n", json_is_true(v) ? "yes" : "no");
        else
            cli_print(c, "%s\n", json_is_string(v) ? json_string_value(v) : "none");
    }
    json_decref(obj);
}

static bool is_text(struct bytes v)
{
    for (size_t i = 0; i < v.len; i++) {
        if (v.ptr[i] < 0x20 || v.ptr[i] >= 0x7f)
            return false;
    }
    return true;
}

/* A value as a person wants to read it: strings are stored with their NUL, or padded by it. */
static json_t *value_json(struct bytes v)
{
    char *hex;
    json_t *out;
    size_t len = v.len;

    while (len > 0 && v.ptr[len - 1] == '\0')
        len--;
    if (len > 0 && is_text(bytes_make(v.ptr, len)))
        return json_stringn((const char *)v.ptr, len);
    hex = malloc(2 * v.len + 1);
    if (hex == NULL)
        return json_null();
    bytes_to_hex(v, hex);
    out = json_sprintf("hex:%s", hex);
    free(hex);
    return out;
}

static json_t *attrs_json(const struct blob_raw_blob *b, bool internal)
{
    json_t *obj = json_object();

    for (unsigned i = 0; i < b->nattrs; i++) {
        const struct blob_raw_attr *a = &b->attr[i];
        json_t *name;

        if (a->internal != internal)
            continue;
        name = value_json(a->name);
        if (internal && a->value.len == 8)
            json_object_set_new(obj, json_string_value(name), blob_cli_id(le64_at(a->value.ptr)));
        else
            json_object_set_new(obj, json_string_value(name), value_json(a->value));
        json_decref(name);
    }
    return obj;
}

/* Runs of clusters that follow each other here and on the device. */
static json_t *extents_json(const struct blob_raw_blob *b)
{
    json_t *list = json_array();

    for (uint64_t i = 0, run; i < b->nclusters; i += run) {
        uint32_t first = b->cluster[i];

        for (run = 1; i + run < b->nclusters; run++) {
            if (b->cluster[i + run] != (first == 0 ? 0 : first + run))
                break;
        }
        if (first != 0)
            json_array_append_new(list, json_pack("{s:I, s:I, s:I}", "from", (json_int_t)i, "count",
                                                  (json_int_t)run, "cluster", (json_int_t)first));
    }
    return list;
}

static json_t *blob_json(const struct cli_blobs *list, const struct cli_blob *x,
                         const struct blob_raw_blob *b)
{
    char flags[BLOB_FLAGS_TEXT];

    return json_pack("{s:o, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "id",
                     blob_cli_id(b->id), "flags", blob_cli_flags(&x->b, flags), "parent",
                     blob_cli_id(b->parent), "clones", (json_int_t)x->b.nclones, "bytes",
                     (json_int_t)(b->nclusters * list->rep.super.cluster_bytes), "clusters",
                     (json_int_t)b->nclusters, "allocated_clusters", (json_int_t)b->nallocated,
                     "md_pages", (json_int_t)b->md_pages, "extent_pages",
                     (json_int_t)b->extent_pages, "xattrs", attrs_json(b, false), "internal_xattrs",
                     attrs_json(b, true), "extents", extents_json(b));
}

static void print_extent(struct cli *c, const json_t *e)
{
    uint64_t from = (uint64_t)json_integer_value(json_object_get(e, "from"));
    uint64_t count = (uint64_t)json_integer_value(json_object_get(e, "count"));
    uint64_t cluster = (uint64_t)json_integer_value(json_object_get(e, "cluster"));

    if (count == 1)
        cli_print(c, "extent              %lu is cluster %lu\n", from, cluster);
    else
        cli_print(c, "extent              %lu-%lu are clusters %lu-%lu\n", from, from + count - 1,
                  cluster, cluster + count - 1);
}

static void print_blob(struct cli *c, json_t *obj)
{
    const char *key, *name;
    json_t *v, *value;
    size_t i;

    json_object_foreach(obj, key, v)
    {
        if (json_is_integer(v))
            cli_print(c, "%-20s%lld\n", key, (long long)json_integer_value(v));
        else if (json_is_string(v) || json_is_null(v))
            cli_print(c, "%-20s%s\n", key, json_is_string(v) ? json_string_value(v) : "none");
        json_array_foreach(v, i, value) print_extent(c, value);
        if (!json_is_object(v))
            continue;
        json_object_foreach(v, name, value)
            cli_print(c, "%-20s%s = %s\n", strcmp(key, "xattrs") == 0 ? "xattr" : "internal xattr",
                      name, json_is_string(value) ? json_string_value(value) : "");
    }
    json_decref(obj);
}

static int show_blob(struct rt_task *t, struct cli *c, const struct dev *d,
                     const struct cli_blobs *list)
{
    CLEANUP(blob_raw_blob_free_p) struct blob_raw_blob *b = NULL;
    const struct cli_blob *x;
    struct blob_raw raw;
    int rc;

    rc = blob_cli_find(c, d, list, cli_arg(c, 2), &x);
    if (rc < 0)
        return rc;
    rc = blob_raw_init(t, d->blk_chan, &raw);
    if (rc == 0)
        rc = blob_raw_blob(t, &raw, x->b.id, &b);
    blob_raw_fini(&raw);
    if (rc == -EBADMSG)
        return cli_fail(c, rc, "blob 0x%lx cannot be read (`kvasir blob check` tells why)",
                        x->b.id);
    if (rc < 0)
        return blob_cli_fail(c, d->uri, rc);
    if (c->json)
        cli_json(c, blob_json(list, x, b));
    else
        print_blob(c, blob_json(list, x, b));
    return 0;
}

int blob_cli_show(struct rt_task *t, struct cli *c)
{
    CLEANUP(blob_cli_blobs_fini_p) struct cli_blobs list = {0};
    struct dev d;
    int rc;

    rc = blob_cli_open(t, c, &d);
    if (rc < 0)
        return rc;
    rc = blob_cli_list(t, c, &d, &list);
    if (rc == 0 && cli_arg(c, 2) != NULL)
        rc = show_blob(t, c, &d, &list);
    else if (rc == 0)
        show_store(c, &list);
    dev_close(t, &d);
    return rc;
}

/* --- check ------------------------------------------------------------------------------------ */

static void print_finding(void *arg, const struct blob_check_finding *f)
{
    struct cli *c = arg;

    if (c->json) {
        cli_json(c, json_pack("{s:s, s:s, s:I, s:o, s:s}", "severity",
                              blob_check_severity_name(f->severity), "structure", f->structure,
                              "offset", (json_int_t)f->offset, "blob", blob_cli_id(f->blob), "text",
                              f->text));
        return;
    }
    cli_print(c, "%s: %s at byte %lu", blob_check_severity_name(f->severity), f->structure,
              f->offset);
    if (f->blob != UINT64_MAX)
        cli_print(c, ", blob 0x%lx", f->blob);
    cli_print(c, ": %s\n", f->text);
}

static void print_report(struct cli *c, const struct dev *d, const struct blob_check_report *r)
{
    if (c->json)
        cli_json(c, json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "uri", d->uri,
                              "clean", r->clean, "blobs", (json_int_t)r->blobs, "clusters",
                              (json_int_t)(r->clusters - r->reserved_clusters), "free_clusters",
                              (json_int_t)r->free_clusters, "md_pages", (json_int_t)r->md_pages,
                              "used_md_pages", (json_int_t)r->used_md_pages, "errors",
                              (json_int_t)r->errors, "warnings", (json_int_t)r->warnings, "notes",
                              (json_int_t)r->notes));
    else
        cli_print(c, "%lu blobs, %lu of %lu clusters free, %s: %lu errors, %lu warnings\n",
                  r->blobs, r->free_clusters, r->clusters - r->reserved_clusters,
                  r->clean ? "closed cleanly" : "not closed cleanly", r->errors, r->warnings);
}

int blob_cli_check(struct rt_task *t, struct cli *c)
{
    struct blob_check_opts opts = {.found = print_finding, .arg = c};
    struct blob_check_report rep;
    struct dev d;
    int rc;

    rc = blob_cli_open(t, c, &d);
    if (rc < 0)
        return rc;
    rc = blob_check(t, d.blk_chan, &opts, &rep);
    if (rc < 0)
        blob_cli_fail(c, d.uri, rc);
    else
        print_report(c, &d, &rep);
    dev_close(t, &d);
    if (rc == 0 && rep.errors + rep.warnings > 0) {
        c->told = true;
        return -EBADMSG;
    }
    return rc == -ENODATA ? -EBADMSG : rc;
}

/* --- dump ------------------------------------------------------------------------------------- */

static int print_line(struct rt_task *t, void *arg, const struct blob_dump_line *l)
{
    struct cli *c = arg;

    if (c->json)
        cli_json(c, json_pack("{s:I, s:s, s:s, s:s}", "offset", (json_int_t)l->offset, "structure",
                              l->structure, "field", l->field, "value", l->value));
    else
        cli_print(c, "%010lx  %-18s%-24s%s\n", l->offset, l->structure, l->field, l->value);
    return cli_flush(t, c, false);
}

static int dump(struct rt_task *t, struct cli *c, const struct dev *d)
{
    CLEANUP(blob_cli_blobs_fini_p) struct cli_blobs list = {0};
    struct blob_dump_opts opts = {.line = print_line, .arg = c, .all = opt_flag(&c->opts, "all")};
    const char *which = opt_str(&c->opts, "blob");
    const struct cli_blob *x;
    int rc;

    /* An id is taken as it is, so that it works on stores that cannot be walked. */
    if (which != NULL && parse_u64(which, &opts.blob) < 0) {
        rc = blob_cli_list(t, c, d, &list);
        if (rc == 0)
            rc = blob_cli_find(c, d, &list, which, &x);
        if (rc < 0)
            return rc;
        opts.blob = x->b.id;
    } else if (which != NULL) {
        opts.blob |= BLOB_RAW_ID_HIGH;
    }
    rc = blob_dump(t, d->blk_chan, &opts);
    if (rc == -ENOENT)
        return cli_fail(c, rc, "no blob 0x%lx on %s", opts.blob, d->uri);
    return rc < 0 && rc != -EPIPE ? blob_cli_fail(c, d->uri, rc) : rc;
}

int blob_cli_dump(struct rt_task *t, struct cli *c)
{
    struct dev d;
    int rc;

    rc = blob_cli_open(t, c, &d);
    if (rc < 0)
        return rc;
    rc = dump(t, c, &d);
    dev_close(t, &d);
    return rc;
}
