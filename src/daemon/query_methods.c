/* SPDX-License-Identifier: Apache-2.0 */
/* How the daemon runs queries: the limits of one, and of all. */
#include "daemon/method.h"

#include <stdlib.h>
#include <string.h>

static const struct method_param set_options_params[] = {
    {"workers_max", METHOD_U64, false, "queries that run at a time; two for each processor", NULL},
    {"workers_ready", METHOD_U64, false, "processes made ahead; 2", NULL},
    {"queue_max", METHOD_U64, false, "queries that wait for their turn, more are refused; 256",
     NULL},
    {"mem_bytes", METHOD_U64, false, "memory of one query; 268435456", NULL},
    {"timeout_ms", METHOD_U64, false,
     "longest time of a query, waiting included; 300000, and 60000 for one that does not say",
     NULL},
    {"cpu_seconds", METHOD_U64, false, "processor time of one query; as long as it may take", NULL},
    {"result_bytes_max", METHOD_U64, false, "longest answer; no limit", NULL},
    {"schemas_max", METHOD_U64, false, "objects whose columns are remembered; 1024", NULL},
    {"engine", METHOD_STR, false,
     "path of libduckdb.so; beside kvasir-query, or where `make deps` "
     "puts it",
     NULL},
    {"worker", METHOD_STR, false, "path of kvasir-query; where it is installed", NULL},
    {NULL},
};

/* `*text` becomes a copy of the parameter, when there is one. */
static int take_path(const json_t *params, const char *name, const char **text, struct err *why)
{
    const char *said = method_str(params, name);
    char *copy;

    if (said == NULL)
        return 0;
    copy = strdup(said);
    if (copy == NULL)
        return err_set(why, -ENOMEM, "no memory");
    free((void *)(uintptr_t)*text);
    *text = copy;
    return 0;
}

static unsigned take_count(const json_t *params, const char *name, unsigned otherwise)
{
    return (unsigned)MIN(method_u64(params, name, otherwise), (uint64_t)INT32_MAX);
}

static int check_limits(const struct query_config *c, struct err *why)
{
    if (c->mem_bytes > 0 && c->mem_bytes < 64 * MIB)
        return err_set(why, -EINVAL, "mem_bytes: a query needs at least 67108864 (64 MiB)");
    if (c->workers_max > 1024)
        return err_set(why, -EINVAL, "workers_max: at most 1024");
    if (c->workers_max > 0 && c->workers_ready > c->workers_max)
        return err_set(why, -EINVAL, "workers_ready is more than workers_max");
    return 0;
}

static int query_set_options(struct rt_task *t, struct daemon *d, const json_t *params,
                             json_t **out_result, struct err *why)
{
    struct query_config c = d->query;
    int rc;

    (void)t;
    (void)out_result;
    if (atomic_load(&d->queries) != NULL)
        return err_set(why, -EBUSY, "queries run already: set their options before the first one");
    c.workers_max = take_count(params, "workers_max", c.workers_max);
    c.workers_ready = take_count(params, "workers_ready", c.workers_ready);
    c.queue_max = take_count(params, "queue_max", c.queue_max);
    c.cpu_seconds = take_count(params, "cpu_seconds", c.cpu_seconds);
    c.schemas_max = take_count(params, "schemas_max", c.schemas_max);
    c.mem_bytes = method_u64(params, "mem_bytes", c.mem_bytes);
    c.result_bytes_max = method_u64(params, "result_bytes_max", c.result_bytes_max);
    c.timeout_ns = MIN(method_u64(params, "timeout_ms", c.timeout_ns / NS_PER_MS),
                       UINT64_MAX / NS_PER_MS / 2) *
                   NS_PER_MS;
    rc = check_limits(&c, why);
    if (rc < 0)
        return rc;
    d->query = c;
    rc = take_path(params, "engine", &d->query.engine, why);
    return rc < 0 ? rc : take_path(params, "worker", &d->query.worker, why);
}

const struct method method_query[] = {
    {"query_set_options", "How queries of hosts (SELECT) are run, and the limits of each.",
     set_options_params, query_set_options},
    {NULL},
};
