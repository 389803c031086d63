/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir lvol snapshot, clone, inflate, decouple, shallow-copy. Copies show how far they are. */
#include "cli/lvol.h"

#include "cli/dev.h"

int lvol_cli_snapshot(struct rt_task *t, struct lvol_cli *l)
{
    struct err why = {""};
    uint64_t id, made;
    int rc = lvol_cli_find_own(t, l, cli_arg(l->c, 2), &id);

    if (rc == 0)
        rc = lvol_cli_fail(l, lvol_snapshot(t, &l->lvs, id, cli_arg(l->c, 3), &made, &why), &why);
    return rc < 0 ? rc : lvol_cli_show(t, l, made);
}

/* Its size is the device's. */
static int clone_external(struct rt_task *t, struct lvol_cli *l, const char *external)
{
    const char *name = cli_arg(l->c, 2);
    struct err why = {""};
    uint64_t id;
    int rc = lvol_cli_fail(l, lvol_clone_external(t, &l->lvs, external, name, 0, &id, &why), &why);

    if (rc < 0 || l->c->json)
        return rc < 0 ? rc : lvol_cli_show(t, l, id);
    cli_print(l->c, "%s\n", lvol_cli_uri(l, name, external));
    return 0;
}

int lvol_cli_clone(struct rt_task *t, struct lvol_cli *l)
{
    const char *external = opt_str(&l->c->opts, "external");
    struct err why = {""};
    uint64_t id, made;
    int rc;

    if (external != NULL)
        return clone_external(t, l, external);
    rc = lvol_cli_find(t, l, cli_arg(l->c, 2), &id);

    if (rc == 0)
        rc = lvol_cli_fail(l, lvol_clone(t, &l->lvs, id, cli_arg(l->c, 3), &made, &why), &why);
    return rc < 0 ? rc : lvol_cli_show(t, l, made);
}

struct work {
    struct cli_progress line;
    uint32_t cluster_bytes;
};

static void progress(void *arg, uint64_t clusters_done, uint64_t clusters)
{
    struct work *w = arg;
    uint64_t done = clusters_done * w->cluster_bytes;

    w->line.total_bytes = clusters * w->cluster_bytes;
    if (done > w->line.done_bytes)
        cli_progress_add(&w->line, done - w->line.done_bytes);
}

static void work_start(struct lvol_cli *l, struct work *w)
{
    struct blob_store_info store;

    blob_store_info(l->lvs.bs, &store);
    *w = (struct work){.cluster_bytes = store.cluster_bytes};
    cli_progress_start(&w->line, l->c, cli_arg(l->c, 2), 0);
}

/* Takes the line away and reports. */
static int work_stop(struct lvol_cli *l, struct work *w, int rc, const struct err *why)
{
    double s = (double)cli_progress_ns(&w->line) / (double)NS_PER_S;
    char rate[CLI_RATE_TEXT];

    cli_progress_stop(&w->line);
    if (rc < 0)
        return lvol_cli_fail(l, rc, why);
    if (l->c->json)
        cli_json(l->c, json_pack("{s:s, s:I, s:f}", "name", cli_arg(l->c, 2), "bytes",
                                 (json_int_t)w->line.done_bytes, "seconds", s));
    else
        cli_note(l->c, "%s: %s", cli_arg(l->c, 2), cli_rate_text(&w->line, rate));
    return 0;
}

typedef int (*work_fn)(struct rt_task *t, const struct lvs *lvs, uint64_t id,
                       const struct lvol_progress *progress, struct err *why);

/* Long work on one volume, which tells how far it is. */
static int work_on(struct rt_task *t, struct lvol_cli *l, work_fn fn)
{
    const char *external = opt_str(&l->c->opts, "external");
    struct lvol_external *e = NULL;
    struct work w;
    const struct lvol_progress p = {progress, &w};
    struct err why = {""};
    uint64_t id;
    int rc = lvol_cli_find(t, l, cli_arg(l->c, 2), &id);

    if (rc == 0)
        rc = lvol_cli_fail(l, lvol_external_open(t, &l->lvs, id, external, &e, &why), &why);
    if (rc < 0)
        return rc;
    work_start(l, &w);
    rc = work_stop(l, &w, fn(t, &l->lvs, id, &p, &why), &why);
    lvol_external_close(t, e);
    return rc;
}

int lvol_cli_inflate(struct rt_task *t, struct lvol_cli *l)
{
    return work_on(t, l, lvol_inflate);
}

int lvol_cli_decouple(struct rt_task *t, struct lvol_cli *l)
{
    return work_on(t, l, lvol_decouple);
}

int lvol_cli_shallow_copy(struct rt_task *t, struct lvol_cli *l)
{
    struct work w;
    const struct lvol_progress p = {progress, &w};
    struct err why = {""};
    struct dev to;
    uint64_t id;
    int rc = lvol_cli_find(t, l, cli_arg(l->c, 2), &id);

    if (rc < 0)
        return rc;
    rc = dev_open(t, l->c, cli_arg(l->c, 3), DEV_BLK, true, &to);
    if (rc < 0)
        return rc;
    work_start(l, &w);
    rc = lvol_shallow_copy(t, &l->lvs, id, to.blk, &p, &why);
    if (rc == 0)
        rc = blk_flush(t, to.blk_chan);
    rc = work_stop(l, &w, rc, &why);
    dev_close(t, &to);
    return rc;
}
