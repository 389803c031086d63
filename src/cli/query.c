/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/query.h"

#include "virt/query/query.h"

#include <string.h>

/* One byte, or \t. */
static int one_char(struct cli *c, const char *name, char *out)
{
    const char *s = opt_str(&c->opts, name);

    *out = 0;
    if (s == NULL)
        return 0;
    if (strcmp(s, "\\t") == 0)
        s = "\t";
    if (strlen(s) != 1 || (*s & 0x80) != 0)
        return cli_usage(c, "--%s is one character of ASCII, not '%s'", name, s);
    *out = *s;
    return 0;
}

int cli_query_options(struct cli *c, struct kv_select *out)
{
    const struct opts *o = &c->opts;
    int rc;

    if (opt_flag(o, "header") && opt_flag(o, "no-header"))
        return cli_usage(c, "--header or --no-header, not both");
    kv_select_format_parse(bytes_of_str(opt_str(o, "input")), &out->input);
    if (opt_flag(o, "header"))
        out->header = KV_SELECT_HEADER_YES;
    if (opt_flag(o, "no-header"))
        out->header = KV_SELECT_HEADER_NO;
    if (opt_str(o, "schema") != NULL)
        out->schema = bytes_of_str(opt_str(o, "schema"));
    if (out->schema.len > KV_SELECT_SCHEMA_MAX)
        return cli_usage(c, "a schema has at most %u bytes", KV_SELECT_SCHEMA_MAX);
    out->timeout_ns = opt_u64(o, "timeout");
    rc = one_char(c, "delimiter", &out->delim);
    if (rc == 0)
        rc = one_char(c, "quote", &out->quote);
    if (rc == 0)
        rc = one_char(c, "escape", &out->escape);
    return rc;
}

int cli_query_run(struct rt_task *t, struct cli_query *cq, const struct kv_select *q,
                  struct kv_select_result *res, struct err *why)
{
    struct query_config cfg = {.mem_bytes = cq->mem_bytes, .timeout_ns = q->timeout_ns};
    int rc;

    if (cq->svc == NULL) {
        rc = kv_select_push(t, cq->dev->kv_chan, q, res, why);
        if (rc != -ENOTSUP || res->pushed)
            return rc;
        cfg.workers_max = cfg.workers_ready = 1;
        why->text[0] = '\0';
        rc = query_service_new(t, &cfg, &cq->svc, why);
        if (rc < 0)
            return rc;
    }
    return query_select(t, cq->svc, cq->dev->kv_chan, q, res, why);
}

void cli_query_close(struct rt_task *t, struct cli_query *cq)
{
    if (cq->svc != NULL)
        query_service_free(t, cq->svc);
    cq->svc = NULL;
}
