/* SPDX-License-Identifier: Apache-2.0 */
#include "capi/capi.h"

#include "config.h"
#include "nvme/host.h"
#include "virt/query/query.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static __thread char error_text[ERR_TEXT_MAX];

static struct {
    pthread_mutex_t lock;
    struct rt *rt;
    unsigned users;
    /* Of the runtime's reactor. */
    struct capi_queries queries;
} lib = {.lock = PTHREAD_MUTEX_INITIALIZER};

const char *kvasir_version(void)
{
    return KVASIR_VERSION;
}

const char *kvasir_error(void)
{
    return error_text;
}

const char *kvasir_strerror(int rc)
{
    return err_str(rc);
}

int capi_fail(int rc, const char *text)
{
    snprintf(error_text, sizeof(error_text), "%s",
             text != NULL && text[0] != '\0' ? text : err_str(rc));
    return rc;
}

int capi_enter(void)
{
    struct rt_config cfg = {.buf_bytes = 16 * MIB};
    struct err why = {""};
    int rc = 0;

    if (rt_self() != NULL)
        return capi_fail(-EDEADLK, NULL);
    pthread_mutex_lock(&lib.lock);
    if (lib.users == 0)
        rc = rt_start(&cfg, &lib.rt, &why);
    if (rc == 0)
        lib.users++;
    pthread_mutex_unlock(&lib.lock);
    return rc < 0 ? capi_fail(rc, why.text) : 0;
}

struct capi_queries *capi_lib_queries(void)
{
    return &lib.queries;
}

void capi_queries_end(struct rt_task *t, struct capi_queries *queries)
{
    query_service_free(t, take_ptr(&queries->svc));
}

static int end_queries(struct rt_task *t, void *arg)
{
    (void)arg;
    capi_queries_end(t, &lib.queries);
    return 0;
}

void capi_leave(void)
{
    pthread_mutex_lock(&lib.lock);
    must(lib.users > 0);
    if (lib.users == 1 && lib.queries.svc != NULL)
        rt_call(lib.rt, 0, end_queries, NULL);
    if (--lib.users == 0)
        rt_stop(take_ptr(&lib.rt));
    pthread_mutex_unlock(&lib.lock);
}

int capi_call(rt_task_fn fn, void *arg)
{
    return rt_call(lib.rt, 0, fn, arg); /* its caller is a user: it stays */
}

/* --- discovery -------------------------------------------------------------------------------- */

struct discover {
    const char *address;
    const char *hostnqn;
    struct nvme_discovery *log;
    struct err why;
};

static int discover_task(struct rt_task *t, void *arg)
{
    struct discover *d = arg;

    return nvme_discover(t, d->address, d->hostnqn, &d->log, &d->why);
}

static const char *transport_name(uint8_t trtype)
{
    switch (trtype) {
    case NVME_TRTYPE_TCP:
        return "tcp";
    case NVME_TRTYPE_RDMA:
        return "rdma";
    case NVME_TRTYPE_FC:
        return "fc";
    case NVME_TRTYPE_LOOP:
        return "loop";
    default:
        return "other";
    }
}

int kvasir_discover(const char *address, const char *hostnqn,
                    int (*each)(void *arg, const struct kvasir_subsystem *s), void *arg)
{
    struct discover d = {.address = address, .hostnqn = hostnqn != NULL ? hostnqn : ""};
    int rc = capi_enter();

    if (rc < 0)
        return rc;
    rc = capi_call(discover_task, &d);
    capi_leave();
    if (rc < 0)
        return capi_fail(rc, d.why.text);
    for (unsigned i = 0; rc == 0 && i < d.log->count; i++) {
        const struct nvme_discovery_info *e = &d.log->entry[i];
        struct kvasir_subsystem s = {
            .nqn = e->subnqn,
            .addr = e->traddr,
            .port = e->trsvcid,
            .transport = transport_name(e->trtype),
            .is_discovery = e->subtype != NVME_SUBTYPE_NVM,
            .needs_tls = (e->treq & NVME_TREQ_SECURE_MASK) == NVME_TREQ_SECURE_REQUIRED,
        };

        rc = each(arg, &s);
    }
    free(d.log);
    return rc;
}
