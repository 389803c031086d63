/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon tells about itself: where it listens, and what has happened. */
#include "daemon/daemon.h"

#include "base/log.h"

#include <string.h>

/* Subsystems with at least one namespace, each once. */
static bool first_of_nqn(struct daemon *d, const struct daemon_ns *ns)
{
    struct daemon_ns *other;

    list_for_each (other, &d->namespaces, struct daemon_ns, link) {
        if (strcmp(other->nqn, ns->nqn) == 0)
            return other == ns;
    }
    return false;
}

static const char *kind(const struct daemon_ns *ns)
{
    if (ns->csd)
        return "csd";
    return ns->dev->kv != NULL ? "key-value" : "block";
}

static const char *dev_uri(const struct daemon_dev *dev)
{
    return dev->kv != NULL ? kv_uri(dev->kv) : blk_uri(dev->blk);
}

static json_t *namespaces_json(struct daemon *d, const char *nqn)
{
    json_t *list = json_array();
    struct daemon_ns *ns;

    list_for_each (ns, &d->namespaces, struct daemon_ns, link) {
        json_t *obj;

        if (strcmp(ns->nqn, nqn) != 0)
            continue;
        obj = json_pack("{s:i, s:s}", "nsid", (int)ns->nsid, "kind", kind(ns));
        json_object_set_new(obj, "name", json_string(ns->dev->name));
        json_object_set_new(obj, "uri", json_string(dev_uri(ns->dev)));
        json_array_append_new(list, obj);
    }
    return list;
}

static void print_one(struct daemon *d, const struct daemon_listener *l,
                      const struct daemon_ns *first, FILE *to, bool json)
{
    struct daemon_ns *ns;
    json_t *obj;
    char *line;

    if (json) {
        obj = json_pack("{s:s, s:s, s:o}", "listening", l->actual, "nqn", first->nqn, "namespaces",
                        namespaces_json(d, first->nqn));
        line = json_dumps(obj, JSON_COMPACT);
        fprintf(to, "%s\n", line);
        free(line);
        json_decref(obj);
        return;
    }
    fprintf(to, "listening %s %s\n", l->actual, first->nqn);
    list_for_each (ns, &d->namespaces, struct daemon_ns, link) {
        if (strcmp(ns->nqn, first->nqn) == 0)
            fprintf(to, "  nvme+tcp://%s/%s?nsid=%u  %s %s (%s)\n", l->actual, ns->nqn, ns->nsid,
                    kind(ns), ns->dev->name, dev_uri(ns->dev));
    }
}

static void print_listener(struct daemon *d, const struct daemon_listener *l, FILE *to, bool json)
{
    struct daemon_ns *ns;

    list_for_each (ns, &d->namespaces, struct daemon_ns, link) {
        if (first_of_nqn(d, ns))
            print_one(d, l, ns, to, json);
    }
}

void daemon_print_listening(struct daemon *d, FILE *to, bool json)
{
    struct daemon_listener *l;

    list_for_each (l, &d->listeners, struct daemon_listener, link)
        print_listener(d, l, to, json);
    fflush(to);
}

static void log_op(const char *dev, const char *op, uint64_t ops, uint64_t bytes, uint64_t errors,
                   const struct hist *latency_ns)
{
    if (ops == 0)
        return;
    log_info("stats: %s: %s: %lu, %lu bytes, %lu errors, p50 %llu us, p99 %llu us, max %llu us",
             dev, op, ops, bytes, errors, hist_percentile(latency_ns, 0.5) / NS_PER_US,
             hist_percentile(latency_ns, 0.99) / NS_PER_US, latency_ns->max / NS_PER_US);
}

/* Histograms are large: the statistics of a device live on the heap. */
static void log_dev(struct rt_task *t, struct daemon_dev *dev)
{
    if (dev->kv != NULL) {
        CLEANUP(free_p) struct kv_stats *s = calloc(1, sizeof(*s));

        for (int i = 0; s != NULL && i < KV_OPS; i++) {
            if (i == 0 && kv_stats(t, dev->kv, s) < 0)
                return;
            log_op(dev->name, kv_op_name((enum kv_op)i), s->op[i].ops, s->op[i].bytes,
                   s->op[i].errors, &s->op[i].latency_ns);
        }
    } else {
        CLEANUP(free_p) struct blk_stats *s = calloc(1, sizeof(*s));

        for (int i = 0; s != NULL && i < BLK_OPS; i++) {
            if (i == 0 && blk_stats(t, dev->blk, s) < 0)
                return;
            log_op(dev->name, blk_op_name((enum blk_op)i), s->op[i].ops, s->op[i].bytes,
                   s->op[i].errors, &s->op[i].latency_ns);
        }
    }
}

void daemon_log_stats(struct rt_task *t, struct daemon *d)
{
    struct nvmf_stats s = {0};
    struct daemon_dev *dev;

    if (d->target != NULL && nvmf_stats(t, d->target, &s) == 0) {
        log_info("stats: %u connections, %u controllers, %lu accepted, %lu refused", s.connections,
                 s.ctrlrs, s.accepted, s.refused);
        log_info("stats: %lu admin and %lu I/O commands, %lu failed, %lu bytes in, %lu out",
                 s.admin_cmds, s.io_cmds, s.failed_cmds, s.bytes_in, s.bytes_out);
        log_info("stats: ended: %lu broke the protocol, %lu keep-alive, %lu stalled; digest "
                 "errors: %lu header, %lu data; %lu buffers yielded",
                 s.term_reqs, s.kato_expired, s.stalled, s.hdgst_errors, s.ddgst_errors, s.yields);
    }
    if (d->target != NULL && s.selects > 0) {
        struct query_results_stats r;

        nvmf_result_stats(d->target, &r);
        log_info("stats: %lu queries of hosts, %lu failed; %u answers held, %lu bytes (%lu in "
                 "memory); %lu went to files, %lu made room, %lu nobody fetched",
                 s.selects, s.selects_failed, r.results, r.bytes, r.mem_bytes, r.spilled, r.evicted,
                 r.expired);
    }
    daemon_queries_log(t, d);
    list_for_each (dev, &d->devs, struct daemon_dev, link)
        log_dev(t, dev);
}
