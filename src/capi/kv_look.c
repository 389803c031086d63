/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters and checks. The layer tells what it finds on the library's thread, where the program's
 * functions must not run: it is kept, and told in the calling thread afterwards.
 */
#include "capi/capi.h"

#include <stdlib.h>

#define FINDINGS_MAX 10000u

static_assert(KVASIR_NOTE == KV_NOTE, "the same values");
static_assert(KVASIR_WARNING == KV_WARNING, "the same values");
static_assert(KVASIR_DAMAGE == KV_ERROR, "the same values");

/* --- counters --------------------------------------------------------------------------------- */

struct counter {
    struct counter *next;
    uint64_t value;
    char name[];
};

struct counters_call {
    struct kvasir_kv *kv;
    struct counter *first, **last;
    bool no_memory;
};

static void keep_counter(void *arg, const char *name, uint64_t value)
{
    struct counters_call *c = arg;
    size_t len = strlen(name) + 1;
    struct counter *kept = malloc(sizeof(*kept) + len);

    if (kept == NULL) {
        c->no_memory = true;
        return;
    }
    kept->next = NULL;
    kept->value = value;
    memcpy(kept->name, name, len);
    *c->last = kept;
    c->last = &kept->next;
}

static int counters_task(struct rt_task *t, void *arg)
{
    struct counters_call *c = arg;

    return kv_counters(t, c->kv->dev, keep_counter, c);
}

int kvasir_kv_counters(struct kvasir_kv *kv,
                       int (*each)(void *arg, const char *name, uint64_t value), void *arg)
{
    struct counters_call c = {.kv = kv, .last = &c.first};
    int rc;

    if (kv->loop != NULL)
        return capi_fail(-EINVAL, "the device was opened for an event loop");
    rc = capi_call(counters_task, &c);
    if (rc == 0 && c.no_memory)
        rc = -ENOMEM;
    if (rc < 0)
        capi_fail(rc, NULL);
    for (struct counter *k = c.first, *next; k != NULL; k = next) {
        next = k->next;
        if (rc == 0)
            rc = each(arg, k->name, k->value);
        free(k);
    }
    return rc;
}

/* --- check ------------------------------------------------------------------------------------ */

struct finding {
    struct finding *next;
    struct kvasir_finding f;
    char bytes[]; /* key, structure, text */
};

struct check_call {
    struct kvasir_kv *kv;
    bool quick, wanted;
    struct finding *first, **last;
    unsigned n;
    struct kv_check_report report;
};

static void keep_finding(void *arg, const struct kv_finding *f)
{
    struct check_call *c = arg;
    size_t structure = strlen(f->structure) + 1, text = strlen(f->text) + 1;
    struct finding *kept;

    if (!c->wanted || c->n == FINDINGS_MAX)
        return;
    kept = malloc(sizeof(*kept) + f->key.len + structure + text);
    if (kept == NULL)
        return; /* it is counted all the same */
    kept->next = NULL;
    if (f->key.len > 0)
        memcpy(kept->bytes, f->key.ptr, f->key.len);
    memcpy(kept->bytes + f->key.len, f->structure, structure);
    memcpy(kept->bytes + f->key.len + structure, f->text, text);
    kept->f = (struct kvasir_finding){
        .severity = (int)f->severity,
        .structure = kept->bytes + f->key.len,
        .offset = f->offset,
        .key = kept->bytes,
        .key_len = f->key.len,
        .text = kept->bytes + f->key.len + structure,
    };
    *c->last = kept;
    c->last = &kept->next;
    c->n++;
}

static int check_task(struct rt_task *t, void *arg)
{
    struct check_call *c = arg;
    struct kv_check_opts opts = {.found = keep_finding, .arg = c, .quick = c->quick};

    return kv_check(t, c->kv->dev, &opts, &c->report);
}

int kvasir_kv_check(struct kvasir_kv *kv, unsigned flags,
                    int (*each)(void *arg, const struct kvasir_finding *finding), void *arg,
                    struct kvasir_check_report *out_report)
{
    struct check_call c = {.kv = kv,
                           .quick = (flags & KVASIR_CHECK_QUICK) != 0,
                           .wanted = each != NULL,
                           .last = &c.first};
    int rc;

    if ((flags & ~KVASIR_CHECK_QUICK) != 0)
        return capi_fail(-EINVAL, NULL);
    if (kv->loop != NULL)
        return capi_fail(-EINVAL, "the device was opened for an event loop");
    rc = capi_call(check_task, &c);
    if (rc < 0)
        capi_fail(rc, NULL);
    for (struct finding *k = c.first, *next; k != NULL; k = next) {
        next = k->next;
        if (rc == 0)
            rc = each(arg, &k->f);
        free(k);
    }
    if (rc == 0)
        *out_report = (struct kvasir_check_report){
            .errors = c.report.errors,
            .warnings = c.report.warnings,
            .notes = c.report.notes,
            .keys = c.report.keys,
            .value_bytes = c.report.value_bytes,
        };
    return rc;
}
