/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir check and kvasir stats: the inside of key-value devices whose driver can tell. */
#include "cli/dev.h"
#include "cli/key.h"
#include "cli/rpc.h"

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

/* The sum, and what the program ends with. */
static int finish_check(struct rt_task *t, struct cli *c, const struct dev *d,
                        const struct kv_check_report *rep)
{
    print_report(c, d, rep);
    if (rep->errors + rep->warnings == 0)
        return cli_flush(t, c, true);
    c->told = true;
    return -EBADMSG;
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
    return finish_check(t, c, d, &rep);
}

/* --- asking a daemon -------------------------------------------------------------------------- */

static uint64_t number_of(const json_t *obj, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(obj, name));
}

static const char *text_of(const json_t *obj, const char *name)
{
    const char *text = json_string_value(json_object_get(obj, name));

    return text != NULL ? text : "";
}

static void print_told(struct cli *c, json_t *f)
{
    if (c->json) {
        cli_json(c, json_incref(f));
        return;
    }
    cli_print(c, "%s: %s at byte %lu", text_of(f, "severity"), text_of(f, "structure"),
              number_of(f, "offset"));
    if (json_object_get(f, "key") != NULL)
        cli_print(c, ", key '%s'", text_of(f, "key"));
    else if (json_object_get(f, "hex") != NULL)
        cli_print(c, ", key %s", text_of(f, "hex"));
    cli_print(c, ": %s\n", text_of(f, "text"));
}

/* `kvasir check NAME --socket PATH`: the daemon checks the device of that name while it serves. */
static int check_by_daemon(struct rt_task *t, struct cli *c, const char *path)
{
    struct dev d = {.uri = cli_arg(c, 0)};
    struct kv_check_report rep;
    json_t *result, *f;
    size_t i;
    int rc = rpc_call(
        t, c, path, "kv_check",
        json_pack("{s:s, s:b}", "name", cli_arg(c, 0), "quick", opt_flag(&c->opts, "quick")),
        &result);

    if (rc < 0)
        return rc;
    json_array_foreach(json_object_get(result, "findings"), i, f)
    {
        print_told(c, f);
    }
    if (number_of(result, "findings_left_off") > 0)
        cli_note(c, "and %lu more", number_of(result, "findings_left_off"));
    rep = (struct kv_check_report){
        .errors = number_of(result, "errors"),
        .warnings = number_of(result, "warnings"),
        .notes = number_of(result, "notes"),
        .keys = number_of(result, "keys"),
        .value_bytes = number_of(result, "value_bytes"),
        .live_bytes = number_of(result, "live_bytes"),
        .segments_used = number_of(result, "segments_used"),
        .segments = number_of(result, "segments"),
    };
    json_decref(result);
    return finish_check(t, c, &d, &rep);
}

/* Who holds it can look itself. */
static int tell_of_daemon(const struct cli *c, int rc)
{
    if (rc == -EBUSY && !c->json)
        fprintf(
            stderr,
            "kvasir %s: a daemon that serves it can be asked: kvasir %s NAME --socket PATH, with "
            "the name it has there and what the daemon was given as --socket\n",
            c->verb->name, c->verb->name);
    return rc;
}

static int check_run(struct rt_task *t, struct cli *c)
{
    const char *path = opt_str(&c->opts, "socket");
    struct dev d;
    int rc;

    if (path != NULL)
        return check_by_daemon(t, c, path);

    if (dev_kinds(cli_arg(c, 0)) == DEV_BLK)
        return cli_usage(c,
                         "'%s' is a block device; `kvasir blob check` looks at the blobstore "
                         "on it",
                         cli_arg(c, 0));
    rc = dev_open(t, c, for_reading(cli_arg(c, 0)), DEV_KV, false, &d);
    if (rc < 0)
        return tell_of_daemon(c, rc);
    rc = check_dev(t, c, &d);
    dev_close(t, &d);
    return rc;
}

static const struct opt check_opts[] = {
    {"quick", 0, OPT_FLAG, false, NULL, NULL, "the index and its accounts only, no values"},
    {"socket", 0, OPT_FILE, false, "PATH", NULL,
     "ask the daemon that answers there; URI is the name it has for the device"},
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
        "have it open. What a daemon serves it checks itself, while others read and write: with "
        "--socket, and the name that the device has there. Prints one finding a line, then a sum. "
        "It ends with 7 when there are "
        "warnings or errors.\n\n"
        "What stands below, the blobstore on the file or disk, is checked as well, as `kvasir blob "
        "check` does it; not while a daemon serves it, which changes it all the time.",
    .examples = "kvasir check blob:/srv/data.kv\n"
                "kvasir check --socket /run/kvasird.sock demo\n"
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

static int stats_by_daemon(struct rt_task *t, struct cli *c, const char *path)
{
    json_t *obj = NULL;
    int rc = rpc_call(t, c, path, "kv_stats", json_pack("{s:s}", "name", cli_arg(c, 0)), &obj);

    if (rc < 0)
        return rc;
    if (c->json)
        cli_json(c, obj);
    else
        print_counters(c, obj);
    return 0;
}

static const struct opt stats_opts[] = {
    {"socket", 0, OPT_FILE, false, "PATH", NULL,
     "ask the daemon that answers there; URI is the name it has for the device"},
    {NULL},
};

static int stats_run(struct rt_task *t, struct cli *c)
{
    const char *path = opt_str(&c->opts, "socket");
    json_t *obj;
    struct dev d;
    int rc;

    if (path != NULL)
        return stats_by_daemon(t, c, path);
    rc = dev_open(t, c, for_reading(cli_arg(c, 0)), DEV_KV, false, &d);
    if (rc < 0)
        return tell_of_daemon(c, rc);
    obj = json_object();
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
             "opened, which here is just now; with --socket, when the daemon opened it.",
    .examples = "kvasir stats blob:/srv/data.kv\n"
                "kvasir stats --socket /run/kvasird.sock demo",
    .opts = stats_opts,
    .args_min = 1,
    .args_max = 1,
    .drivers = CLI_KV,
    .run = stats_run,
};
