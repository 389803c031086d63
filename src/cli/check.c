/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir check and kvasir stats: the inside of key-value devices whose driver can tell. */
#include "cli/dev.h"
#include "cli/key.h"

#include <string.h>

static const char *const severities[] = {"note", "warning", "error"};

/* --- the URI, for reading only ---------------------------------------------------------------- */

static bool takes_readonly(const char *uri)
{
    size_t len = strcspn(uri, ":");

    for (unsigned i = 0; kv_drivers[i] != NULL; i++) {
        const struct kv_driver *d = kv_drivers[i];

        if (strncmp(d->name, uri, len) != 0 || d->name[len] != '\0')
            continue;
        for (const struct param *p = d->params; p != NULL && p->name != NULL; p++) {
            if (strcmp(p->name, "readonly") == 0)
                return true;
        }
    }
    return false;
}

/* Opening for writing would replay and change things before they are looked at. */
static const char *for_reading(const char *uri)
{
    static char out[URI_MAX];
    size_t len = strcspn(uri, "#");
    bool query = memchr(uri, '?', len) != NULL;

    if (!takes_readonly(uri) || strstr(uri, "readonly") != NULL)
        return uri;
    snprintf(out, sizeof(out), "%.*s%creadonly=yes%s", (int)len, uri, query ? '&' : '?', uri + len);
    return out;
}

/* --- check ------------------------------------------------------------------------------------ */

static void print_finding(void *arg, const struct kv_finding *f)
{
    static char key[CLI_KEY_TEXT_MAX];
    struct cli *c = arg;

    if (c->json) {
        json_t *obj = json_pack("{s:s, s:s, s:I}", "severity", severities[f->severity], "structure",
                                f->structure, "offset", (json_int_t)f->offset);

        if (f->key.len > 0)
            cli_key_json(obj, f->key);
        json_object_set_new(obj, "text", json_string(f->text));
        cli_json(c, obj);
        return;
    }
    cli_print(c, "%s: %s at byte %lu", severities[f->severity], f->structure, f->offset);
    if (f->key.len > 0)
        cli_print(c, ", key '%s'", cli_key_text(f->key, key));
    cli_print(c, ": %s\n", f->text);
}

static void print_report(struct cli *c, const struct dev *d, const struct kv_check_report *r)
{
    char live[CLI_SIZE_TEXT], values[CLI_SIZE_TEXT];

    if (c->json)
        cli_json(c, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "uri", d->uri,
                              "keys", (json_int_t)r->keys, "value_bytes",
                              (json_int_t)r->value_bytes, "live_bytes", (json_int_t)r->live_bytes,
                              "segments_used", (json_int_t)r->segments_used, "segments",
                              (json_int_t)r->segments, "errors", (json_int_t)r->errors, "warnings",
                              (json_int_t)r->warnings, "notes", (json_int_t)r->notes));
    else
        cli_print(c,
                  "%lu entries, %s of values read, %s live in %lu of %lu segments: %lu errors, "
                  "%lu warnings\n",
                  r->keys, cli_size_text(r->value_bytes, values),
                  cli_size_text(r->live_bytes, live), r->segments_used, r->segments, r->errors,
                  r->warnings);
}

static int check_dev(struct rt_task *t, struct cli *c, const struct dev *d)
{
    struct kv_check_opts opts = {
        .found = print_finding, .arg = c, .quick = opt_flag(&c->opts, "quick")};
    struct kv_check_report rep;
    int rc;

    rc = kv_check(t, d->kv, &opts, &rep);
    if (rc == -ENOTSUP)
        return cli_fail(c, rc, "%s: devices of this kind cannot be checked", d->uri);
    if (rc < 0)
        return cli_fail(c, rc, "cannot check %s: %s", d->uri, err_str(rc));
    print_report(c, d, &rep);
    if (rep.errors + rep.warnings == 0)
        return cli_flush(t, c, true);
    c->told = true;
    return -EBADMSG;
}

static int check_run(struct rt_task *t, struct cli *c)
{
    struct dev d;
    int rc;

    if (dev_kinds(cli_arg(c, 0)) == DEV_BLK)
        return cli_usage(c,
                         "'%s' is a block device; `kvasir blob check` looks at the blobstore "
                         "on it",
                         cli_arg(c, 0));
    rc = dev_open(t, c, for_reading(cli_arg(c, 0)), DEV_KV, false, &d);
    if (rc < 0)
        return rc;
    rc = check_dev(t, c, &d);
    dev_close(t, &d);
    return rc;
}

static const struct opt check_opts[] = {
    {"quick", 0, OPT_FLAG, false, NULL, NULL, "the index and its accounts only, no values"},
    {NULL},
};

const struct cli_verb verb_check = {
    .name = "check",
    .args = "URI",
    .summary = "verify what a key-value device stores",
    .about =
        "Reads everything and verifies checksums, the index, that each key's record is the one "
        "that the index means, and that what is counted as live is exactly what is referred to. "
        "Changes and repairs nothing: the device is opened for reading only, so nobody else may "
        "have it open. Prints one finding a line, then a sum. It ends with 7 when there are "
        "warnings or errors.\n\n"
        "What stands below, the blobstore on the file or disk, `kvasir blob check` looks at.",
    .examples = "kvasir check blob:/srv/data.kv\n"
                "kvasir check --json --quick 'blob:/srv/data.kv?key_file=/etc/kvasir/key'",
    .opts = check_opts,
    .args_min = 1,
    .args_max = 1,
    .drivers = CLI_KV,
    .run = check_run,
};

/* --- stats ------------------------------------------------------------------------------------ */

static void add_counter(void *arg, const char *name, uint64_t value)
{
    json_object_set_new(arg, name, json_integer((json_int_t)MIN(value, (uint64_t)INT64_MAX)));
}

static void print_counters(struct cli *c, json_t *obj)
{
    const char *name;
    json_t *v;

    json_object_foreach(obj, name, v)
    {
        uint64_t n = (uint64_t)json_integer_value(v);
        size_t len = strlen(name);
        char size[CLI_SIZE_TEXT];

        cli_print(c, "%-26s%lu", name, n);
        if (n >= 1024 && len > 6 && strcmp(name + len - 6, "_bytes") == 0)
            cli_print(c, " (%s)", cli_size_text(n, size));
        cli_print(c, "\n");
    }
    json_decref(obj);
}

static int stats_run(struct rt_task *t, struct cli *c)
{
    json_t *obj = json_object();
    struct dev d;
    int rc;

    rc = dev_open(t, c, for_reading(cli_arg(c, 0)), DEV_KV, false, &d);
    if (rc < 0) {
        json_decref(obj);
        return rc;
    }
    rc = kv_counters(t, d.kv, add_counter, obj);
    if (rc == -ENOTSUP)
        cli_fail(c, rc, "%s: devices of this kind have no counters", d.uri);
    else if (rc < 0)
        cli_fail(c, rc, "cannot read the counters of %s: %s", d.uri, err_str(rc));
    dev_close(t, &d);
    if (rc < 0)
        json_decref(obj);
    else if (c->json)
        cli_json(c, obj);
    else
        print_counters(c, obj);
    return rc;
}

const struct cli_verb verb_stats = {
    .name = "stats",
    .args = "URI",
    .summary = "show what a key-value device is made of",
    .about = "Prints the numbers that the device's driver keeps of itself: keys, segments and "
             "what lives in them, memory, and what has been read and written since it was "
             "opened, which here is just now.",
    .examples = "kvasir stats blob:/srv/data.kv",
    .args_min = 1,
    .args_max = 1,
    .drivers = CLI_KV,
    .run = stats_run,
};
