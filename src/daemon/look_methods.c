/* SPDX-License-Identifier: Apache-2.0 */
/* Methods that look at what is served, for the socket (rpc.h): check and counters of devices. */
#include "daemon/method.h"

#include "base/log.h"

#include <string.h>

#define FINDINGS_MAX 1000u

static int find_kv(struct daemon *d, const json_t *params, struct kv_dev **out, struct err *why)
{
    const char *name = method_str(params, "name");
    struct daemon_dev *dev = daemon_dev_find(d, name);

    if (dev == NULL)
        return err_set(why, -ENOENT, "no device has the name '%.60s'", name);
    if (dev->kv == NULL)
        return err_set(why, -ENOTSUP, "'%.60s' is a block device", name);
    *out = dev->kv;
    return 0;
}

/* --- kv_check --------------------------------------------------------------------------------- */

struct findings {
    json_t *list;
    uint64_t left_off;
};

static json_t *key_json(struct bytes key)
{
    json_t *text = json_stringn((const char *)key.ptr, key.len);
    CLEANUP(free_p) char *hex = text == NULL ? malloc(2 * key.len + 1) : NULL;

    if (text != NULL)
        return json_pack("{s:o}", "key", text);
    if (hex == NULL)
        return NULL;
    for (size_t i = 0; i < key.len; i++)
        snprintf(hex + 2 * i, 3, "%02x", key.ptr[i]);
    return json_pack("{s:s}", "hex", hex);
}

static void add_finding(void *arg, const struct kv_finding *f)
{
    static const char *const severities[] = {"note", "warning", "error"};
    struct findings *all = arg;
    json_t *obj, *key;

    if (json_array_size(all->list) >= FINDINGS_MAX) {
        all->left_off++;
        return;
    }
    obj = json_pack("{s:s, s:s, s:I, s:s}", "severity", severities[f->severity], "structure",
                    f->structure, "offset", (json_int_t)f->offset, "text", f->text);
    key = f->key.len > 0 ? key_json(f->key) : NULL;
    if (key != NULL)
        json_object_update(obj, key);
    json_decref(key);
    json_array_append_new(all->list, obj);
}

static json_t *report_json(const struct kv_check_report *r, const struct findings *all)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:O, s:I}", "keys",
                     (json_int_t)r->keys, "value_bytes", (json_int_t)r->value_bytes, "live_bytes",
                     (json_int_t)r->live_bytes, "segments_used", (json_int_t)r->segments_used,
                     "segments", (json_int_t)r->segments, "errors", (json_int_t)r->errors,
                     "warnings", (json_int_t)r->warnings, "notes", (json_int_t)r->notes, "findings",
                     all->list, "findings_left_off", (json_int_t)all->left_off);
}

static const struct method_param check_params[] = {
    {"name", METHOD_STR, true, "of a key-value device", NULL},
    {"quick", METHOD_BOOL, false, "the index and its accounts only, no values", NULL},
    {NULL},
};

static int kv_check_method(struct rt_task *t, struct daemon *d, const json_t *params,
                           json_t **out_result, struct err *why)
{
    struct findings all = {.list = json_array()};
    struct kv_check_opts opts = {
        .found = add_finding, .arg = &all, .quick = method_bool(params, "quick", false)};
    const char *name = method_str(params, "name");
    struct kv_check_report rep;
    struct kv_dev *dev = NULL;
    uint64_t began = rt_now();
    int rc = find_kv(d, params, &dev, why);

    if (rc == 0) {
        log_info("check of '%s' begins", name);
        rc = kv_check(t, dev, &opts, &rep);
        if (rc == 0)
            log_info("check of '%s': %lu entries, %lu bytes, %lu errors, %lu warnings, %.1f s",
                     name, rep.keys, rep.value_bytes, rep.errors, rep.warnings,
                     (double)(rt_now() - began) / (double)NS_PER_S);
        else
            log_warn("check of '%s': %s", name, err_str(rc));
    }
    if (rc == 0)
        *out_result = report_json(&rep, &all);
    else if (rc == -ENOTSUP && why->text[0] == '\0')
        err_set(why, rc, "devices of the kind of '%.60s' cannot be checked", name);
    else if (rc == -ESTALE)
        err_set(why, rc,
                "'%.60s' changes too fast: a check keeps what is replaced meanwhile, and that "
                "became more than snapshot_pin= allows",
                name);
    json_decref(all.list);
    return rc;
}

/* --- kv_stats --------------------------------------------------------------------------------- */

static void add_counter(void *arg, const char *name, uint64_t value)
{
    json_object_set_new(arg, name, json_integer((json_int_t)MIN(value, (uint64_t)INT64_MAX)));
}

static const struct method_param stats_params[] = {
    {"name", METHOD_STR, true, "of a key-value device", NULL},
    {NULL},
};

static int kv_stats_method(struct rt_task *t, struct daemon *d, const json_t *params,
                           json_t **out_result, struct err *why)
{
    struct kv_dev *dev = NULL;
    int rc = find_kv(d, params, &dev, why);

    if (rc < 0)
        return rc;
    *out_result = json_object();
    rc = kv_counters(t, dev, add_counter, *out_result);
    if (rc == -ENOTSUP)
        err_set(why, rc, "devices of the kind of '%.60s' have no counters",
                method_str(params, "name"));
    return rc;
}

/* --- what there is ---------------------------------------------------------------------------- */

static int devices_method(struct rt_task *t, struct daemon *d, const json_t *params,
                          json_t **out_result, struct err *why)
{
    struct daemon_dev *dev;

    *out_result = json_array();
    list_for_each (dev, &d->devs, struct daemon_dev, link)
        json_array_append_new(*out_result,
                              json_pack("{s:s, s:s, s:s}", "name", dev->name, "kind",
                                        dev->kv != NULL ? "key-value" : "block", "uri",
                                        dev->kv != NULL ? kv_uri(dev->kv) : blk_uri(dev->blk)));
    return 0;
}

static const struct method_param no_params[] = {{NULL}};

static int methods_method(struct rt_task *t, struct daemon *d, const json_t *params,
                          json_t **out_result, struct err *why)
{
    *out_result = json_array();
    for (const struct method *m = method_look; m->name != NULL; m++)
        json_array_append_new(*out_result, json_string(m->name));
    return 0;
}

const struct method method_look[] = {
    {"kv_check", "verify what a key-value device stores, while it is served", check_params,
     kv_check_method},
    {"kv_stats", "the counters of a key-value device", stats_params, kv_stats_method},
    {"kvasir_get_devices", "the devices there are", no_params, devices_method},
    {"rpc_get_methods", "the methods there are", no_params, methods_method},
    {NULL},
};
