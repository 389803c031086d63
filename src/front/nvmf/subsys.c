/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subsystems with their hosts and namespaces. All changes are made by tasks of reactor 0; each
 * reactor has a table of namespaces of its own, which is changed by a task there. So a command
 * finds its namespace and channel without a lock, and a namespace goes when the last reactor
 * has let go of it.
 */
#include "front/nvmf/internal.h"

#include <stdio.h>
#include <string.h>

/* --- subsystems ------------------------------------------------------------------------------- */

struct nvmf_subsys *nvmf_subsys_find(struct nvmf_target *tgt, const char *nqn)
{
    struct nvmf_subsys *s;

    if (strcmp(nqn, tgt->discovery->nqn) == 0)
        return tgt->discovery;
    list_for_each (s, &tgt->subsystems, struct nvmf_subsys, link) {
        if (strcmp(s->nqn, nqn) == 0)
            return s;
    }
    return NULL;
}

static struct nvmf_subsys *find_user(struct nvmf_target *tgt, const char *nqn, struct err *why)
{
    struct nvmf_subsys *s = nvmf_subsys_find(tgt, nqn);

    if (s == NULL || s->discovery || s->removing) {
        err_set(why, -ENOENT, "there is no subsystem %s", nqn);
        return NULL;
    }
    return s;
}

static void subsys_free(struct nvmf_subsys *s)
{
    struct nvmf_host *h;

    if (s == NULL)
        return;
    while ((h = list_pop_entry(&s->hosts, struct nvmf_host, link)) != NULL)
        free(h);
    for (unsigned i = 0; s->table != NULL && i < s->tgt->nreactors; i++)
        free(s->table[i]);
    free(s->table);
    free(s);
}

static struct nvmf_subsys *subsys_new(struct nvmf_target *tgt, const char *nqn)
{
    struct nvmf_subsys *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->tgt = tgt;
    list_init(&s->link);
    list_init(&s->hosts);
    list_init(&s->regs);
    snprintf(s->nqn, sizeof(s->nqn), "%s", nqn);
    s->table = calloc(tgt->nreactors, sizeof(*s->table));
    for (unsigned i = 0; s->table != NULL && i < tgt->nreactors; i++) {
        s->table[i] = calloc(NVMF_NSID_MAX + 1, sizeof(**s->table));
        if (s->table[i] == NULL) {
            subsys_free(s);
            return NULL;
        }
    }
    if (s->table == NULL) {
        subsys_free(s);
        return NULL;
    }
    return s;
}

int nvmf_discovery_new(struct nvmf_target *tgt)
{
    tgt->discovery = subsys_new(tgt, NVME_DISCOVERY_NQN);
    if (tgt->discovery == NULL)
        return -ENOMEM;
    tgt->discovery->discovery = true;
    tgt->discovery->any_host = true;
    snprintf(tgt->discovery->model, sizeof(tgt->discovery->model), "Kvasir discovery");
    snprintf(tgt->discovery->serial, sizeof(tgt->discovery->serial), "00000000000000000000");
    return 0;
}

/* Always the same for the same NQN. */
static void serial_of(const char *nqn, char out[21])
{
    uint8_t id[16];

    blk_uuid_of(nqn, id);
    for (int i = 0; i < 10; i++)
        snprintf(out + 2 * i, 3, "%02X", id[i]);
}

static bool printable(const char *text, size_t max)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < len; i++) {
        if (text[i] < ' ' || text[i] > '~')
            return false;
    }
    return len <= max;
}

int nvmf_subsys_add(struct rt_task *t, struct nvmf_target *tgt,
                    const struct nvmf_subsys_config *cfg, struct err *why)
{
    const char *model = cfg->model != NULL ? cfg->model : "Kvasir";
    struct nvmf_subsys *s;

    if (!nvme_nqn_ok(cfg->nqn))
        return err_set(why, -EINVAL, "'%s' is not an NQN (nqn.yyyy-mm.domain:name)", cfg->nqn);
    if (!printable(model, 40) || (cfg->serial != NULL && !printable(cfg->serial, 20)))
        return err_set(why, -EINVAL,
                       "the serial number has at most 20, the model 40 printable ASCII characters");
    if (nvmf_subsys_find(tgt, cfg->nqn) != NULL)
        return err_set(why, -EEXIST, "there is a subsystem %s already", cfg->nqn);
    s = subsys_new(tgt, cfg->nqn);
    if (s == NULL)
        return err_set(why, -ENOMEM, "no memory for a subsystem");
    snprintf(s->model, sizeof(s->model), "%s", model);
    if (cfg->serial != NULL)
        snprintf(s->serial, sizeof(s->serial), "%s", cfg->serial);
    else
        serial_of(cfg->nqn, s->serial);
    s->any_host = cfg->allow_any_host;
    list_add_tail(&tgt->subsystems, &s->link);
    nvmf_discovery_changed(t, tgt);
    return 0;
}

/* --- disconnecting hosts ---------------------------------------------------------------------- */

struct kill_call {
    struct nvmf_subsys *subsys;
    const char *host; /* NULL: all */
};

static int kill_local(struct rt_task *t, void *arg)
{
    const struct kill_call *k = arg;
    struct nvmf_local *l = nvmf_local_of(k->subsys->tgt);
    struct nvmf_ctrlr *ctrlr;

    list_for_each (ctrlr, &l->ctrlrs, struct nvmf_ctrlr, link) {
        if (ctrlr->subsys == k->subsys && (k->host == NULL || strcmp(ctrlr->hostnqn, k->host) == 0))
            nvmf_conn_kill(ctrlr->admin);
    }
    return 0;
}

static bool has_ctrlr(const struct nvmf_subsys *s, const char *host)
{
    struct nvmf_reg *reg;

    list_for_each (reg, &s->regs, struct nvmf_reg, link) {
        if (host == NULL || strcmp(reg->hostnqn, host) == 0)
            return true;
    }
    return false;
}

/* Again and again: a Connect may be on its way from here to its own reactor. */
static void disconnect(struct rt_task *t, struct nvmf_subsys *s, const char *host)
{
    struct kill_call k = {.subsys = s, .host = host};

    while (has_ctrlr(s, host)) {
        nvmf_each_reactor(t, s->tgt, kill_local, &k);
        rt_sleep(t, 2 * NS_PER_MS);
    }
}

/* --- hosts ------------------------------------------------------------------------------------ */

static struct nvmf_host *host_find(const struct nvmf_subsys *s, const char *host_nqn)
{
    struct nvmf_host *h;

    list_for_each (h, &s->hosts, struct nvmf_host, link) {
        if (strcmp(h->nqn, host_nqn) == 0)
            return h;
    }
    return NULL;
}

bool nvmf_host_allowed(const struct nvmf_subsys *s, const char *host_nqn)
{
    return s->any_host || host_find(s, host_nqn) != NULL;
}

int nvmf_allow_any_host(struct rt_task *t, struct nvmf_target *tgt, const char *nqn, bool allow,
                        struct err *why)
{
    struct nvmf_subsys *s = find_user(tgt, nqn, why);

    if (s == NULL)
        return -ENOENT;
    s->any_host = allow;
    nvmf_discovery_changed(t, tgt);
    return 0;
}

int nvmf_host_add(struct rt_task *t, struct nvmf_target *tgt, const char *nqn, const char *host_nqn,
                  struct err *why)
{
    struct nvmf_subsys *s = find_user(tgt, nqn, why);
    struct nvmf_host *h;

    if (s == NULL)
        return -ENOENT;
    if (!nvme_nqn_ok(host_nqn))
        return err_set(why, -EINVAL, "'%s' is not an NQN", host_nqn);
    if (host_find(s, host_nqn) != NULL)
        return err_set(why, -EEXIST, "%s is listed already", host_nqn);
    h = calloc(1, sizeof(*h));
    if (h == NULL)
        return err_set(why, -ENOMEM, "no memory for a host");
    snprintf(h->nqn, sizeof(h->nqn), "%s", host_nqn);
    list_add_tail(&s->hosts, &h->link);
    nvmf_discovery_changed(t, tgt);
    return 0;
}

int nvmf_host_remove(struct rt_task *t, struct nvmf_target *tgt, const char *nqn,
                     const char *host_nqn, struct err *why)
{
    struct nvmf_subsys *s = find_user(tgt, nqn, why);
    struct nvmf_host *h = s != NULL ? host_find(s, host_nqn) : NULL;

    if (s == NULL)
        return -ENOENT;
    if (h == NULL)
        return err_set(why, -ENOENT, "%s is not listed", host_nqn);
    list_del(&h->link);
    free(h);
    if (!s->any_host)
        disconnect(t, s, host_nqn);
    nvmf_discovery_changed(t, tgt);
    return 0;
}

/* --- namespaces ------------------------------------------------------------------------------- */

static int open_local(struct rt_task *t, void *arg)
{
    struct nvmf_ns *ns = arg;
    struct nvmf_ns_use *use = &ns->use[rt_index(rt_self())];

    list_init(&use->idle.waiters);
    return ns->blk != NULL ? blk_chan_get(t, ns->blk, &use->blk) : kv_chan_get(t, ns->kv, &use->kv);
}

static int publish_local(struct rt_task *t, void *arg)
{
    struct nvmf_ns *ns = arg;

    ns->subsys->table[rt_index(rt_self())][ns->nsid] = ns;
    return 0;
}

/* Commands that wait for their host, or in a line, end now; those of devices do by themselves. */
static void fail_commands(struct nvmf_local *l, const struct nvmf_ns *ns)
{
    struct nvmf_conn *c;

    list_for_each (c, &l->conns, struct nvmf_conn, link) {
        for (unsigned i = 0; i < c->nused; i++) {
            if (c->cmds[i].state != NVMF_CMD_FREE && c->cmds[i].ns == ns)
                nvmf_cmd_cancel(&c->cmds[i]);
        }
        nvmf_handles_end(c, ns);
    }
}

static int retire_local(struct rt_task *t, void *arg)
{
    struct nvmf_ns *ns = arg;
    struct nvmf_ns_use *use = &ns->use[rt_index(rt_self())];

    ns->subsys->table[rt_index(rt_self())][ns->nsid] = NULL;
    use->gone = true;
    fail_commands(nvmf_local_of(ns->subsys->tgt), ns);
    while (use->inflight > 0)
        rt_cond_wait(t, &use->idle);
    return 0;
}

static int close_local(struct rt_task *t, void *arg)
{
    struct nvmf_ns *ns = arg;
    struct nvmf_ns_use *use = &ns->use[rt_index(rt_self())];

    if (use->blk != NULL)
        blk_chan_put(t, use->blk);
    if (use->kv != NULL)
        kv_chan_put(t, use->kv);
    use->blk = NULL;
    use->kv = NULL;
    return 0;
}

static int tell_local(struct rt_task *t, void *arg)
{
    const struct nvmf_ns *ns = arg;
    struct nvmf_local *l = nvmf_local_of(ns->subsys->tgt);
    struct nvmf_ctrlr *ctrlr;

    list_for_each (ctrlr, &l->ctrlrs, struct nvmf_ctrlr, link) {
        if (ctrlr->subsys == ns->subsys)
            nvmf_ctrlr_ns_changed(ctrlr, ns->nsid);
    }
    return 0;
}

/* --- events of devices ------------------------------------------------------------------------ */

struct ns_event {
    struct nvmf_target *tgt;
    struct rt_req done;
    uint32_t nsid;
    bool removed;
    char nqn[NVME_NQN_FIELD];
};

static void event_done(struct rt_req *req)
{
    struct ns_event *e = container_of(req, struct ns_event, done);

    e->tgt->nevents--;
    rt_cond_wake_all(&e->tgt->conns_gone);
    free(e);
}

static int event_main(struct rt_task *t, void *arg)
{
    struct ns_event *e = arg;
    struct nvmf_subsys *s = nvmf_subsys_find(e->tgt, e->nqn);
    struct nvmf_ns *ns = s != NULL ? s->table[0][e->nsid] : NULL;

    if (ns == NULL || ns->removing)
        return 0;
    if (e->removed) {
        log_warn("nvmf: the device of namespace %u of %s has gone", e->nsid, e->nqn);
        nvmf_ns_remove(t, e->tgt, e->nqn, e->nsid, NULL);
    } else {
        ns->holds++;
        nvmf_each_reactor(t, e->tgt, tell_local, ns);
        ns->holds--;
    }
    return 0;
}

static void begin_event(struct nvmf_ns *ns, bool removed)
{
    struct ns_event *e = calloc(1, sizeof(*e));

    if (e == NULL)
        return;
    e->tgt = ns->subsys->tgt;
    e->nsid = ns->nsid;
    e->removed = removed;
    memcpy(e->nqn, ns->subsys->nqn, sizeof(e->nqn));
    rt_req_init(&e->done, event_done);
    if (rt_task_start("nvmf-event", event_main, e, &e->done, NULL) < 0)
        free(e);
    else
        e->tgt->nevents++;
}

static void blk_event(struct blk_watch *w, enum blk_event ev)
{
    begin_event(container_of(w, struct nvmf_ns, blk_watch), ev == BLK_EVENT_REMOVED);
}

static void kv_event(struct kv_watch *w, enum kv_event ev)
{
    begin_event(container_of(w, struct nvmf_ns, kv_watch), ev == KV_EVENT_REMOVED);
}

/* --- adding and removing ---------------------------------------------------------------------- */

/* The same for the same device in the same place; another in another subsystem, where a host that
 * sees both would take them for one. */
static void make_ids(struct nvmf_ns *ns, const struct nvmf_ns_config *cfg,
                     const uint8_t dev_uuid[16])
{
    char text[3 * NVME_NQN_FIELD], hex[33];

    bytes_to_hex(bytes_make(dev_uuid, 16), hex);
    snprintf(text, sizeof(text), "uuid %s %s %u", hex, ns->subsys->nqn, ns->nsid);
    if (cfg->uuid != NULL)
        memcpy(ns->uuid, cfg->uuid, 16);
    else
        blk_uuid_of(text, ns->uuid);
    snprintf(text, sizeof(text), "nguid %s %s %u", hex, ns->subsys->nqn, ns->nsid);
    if (cfg->nguid != NULL)
        memcpy(ns->nguid, cfg->nguid, 16);
    else
        blk_uuid_of(text, ns->nguid);
}

static int fill_blk(struct nvmf_ns *ns, const struct nvmf_ns_config *cfg, struct err *why)
{
    const struct blk_info *info = blk_info(cfg->blk);

    if (info->block_bytes > NVMF_BLOCK_MAX)
        return err_set(why, -ENOTSUP, "%s: blocks of %u bytes; namespaces have at most %u",
                       blk_uri(cfg->blk), info->block_bytes, NVMF_BLOCK_MAX);
    ns->read_only = info->caps & BLK_CAP_READ_ONLY;
    ns->volatile_cache = info->caps & BLK_CAP_VOLATILE_CACHE;
    ns->copies = info->buf_align > 1;
    ns->block_bytes = info->block_bytes;
    ns->block_shift = (unsigned)__builtin_ctz(info->block_bytes);
    make_ids(ns, cfg, info->uuid);
    return blk_claim(cfg->blk, ns->read_only ? BLK_CLAIM_READ : BLK_CLAIM_SHARED_WRITE,
                     "NVMe/TCP target", why);
}

static int fill_kv(struct nvmf_ns *ns, const struct nvmf_ns_config *cfg, struct err *why)
{
    const struct kv_info *info = kv_info(cfg->kv);

    ns->read_only = info->caps & KV_CAP_READ_ONLY;
    ns->volatile_cache = info->caps & KV_CAP_VOLATILE_CACHE;
    ns->csd = cfg->csd;
    ns->block_bytes = 512;
    ns->block_shift = 9;
    make_ids(ns, cfg, info->uuid);
    return kv_claim(cfg->kv, ns->read_only ? KV_CLAIM_READ : KV_CLAIM_SHARED_WRITE,
                    "NVMe/TCP target", why);
}

static void unclaim(struct nvmf_ns *ns)
{
    if (ns->blk != NULL)
        blk_unclaim(ns->blk, ns->read_only ? BLK_CLAIM_READ : BLK_CLAIM_SHARED_WRITE,
                    "NVMe/TCP target");
    else
        kv_unclaim(ns->kv, ns->read_only ? KV_CLAIM_READ : KV_CLAIM_SHARED_WRITE,
                   "NVMe/TCP target");
}

static struct nvmf_ns *ns_new(struct nvmf_subsys *s, uint32_t nsid)
{
    struct nvmf_ns *ns = calloc(1, sizeof(*ns));
    size_t use_bytes = s->tgt->nreactors * sizeof(*ns->use);

    if (ns == NULL)
        return NULL;
    ns->use = aligned_alloc(64, use_bytes);
    if (ns->use == NULL) {
        free(ns);
        return NULL;
    }
    memset(ns->use, 0, use_bytes);
    ns->subsys = s;
    ns->id = rt_trace_new();
    ns->nsid = nsid;
    ns->blk_watch.fn = blk_event;
    ns->kv_watch.fn = kv_event;
    return ns;
}

static void ns_free(struct nvmf_ns *ns)
{
    free(ns->use);
    free(ns);
}

static uint32_t free_nsid(const struct nvmf_subsys *s)
{
    for (uint32_t i = 1; i <= NVMF_NSID_MAX; i++) {
        if (!s->taken[i])
            return i;
    }
    return 0;
}

static int ns_open(struct rt_task *t, struct nvmf_ns *ns, const struct nvmf_ns_config *cfg,
                   struct err *why)
{
    int rc = cfg->blk != NULL ? fill_blk(ns, cfg, why) : fill_kv(ns, cfg, why);

    if (rc < 0)
        return rc;
    if (cfg->blk != NULL)
        ns->blk = blk_ref(cfg->blk);
    else
        ns->kv = kv_ref(cfg->kv);
    return nvmf_each_reactor(t, ns->subsys->tgt, open_local, ns);
}

static void ns_close(struct rt_task *t, struct nvmf_ns *ns)
{
    nvmf_each_reactor(t, ns->subsys->tgt, close_local, ns);
    if (ns->blk != NULL || ns->kv != NULL)
        unclaim(ns);
    if (ns->blk != NULL)
        blk_close(t, ns->blk);
    if (ns->kv != NULL)
        kv_close(t, ns->kv);
    ns->subsys->taken[ns->nsid] = false;
    ns_free(ns);
}

int nvmf_ns_add(struct rt_task *t, struct nvmf_target *tgt, const char *nqn,
                const struct nvmf_ns_config *cfg, uint32_t *out_nsid, struct err *why)
{
    struct nvmf_subsys *s = find_user(tgt, nqn, why);
    uint32_t nsid;
    struct nvmf_ns *ns;
    int rc;

    if (s == NULL)
        return -ENOENT;
    if ((cfg->blk == NULL) == (cfg->kv == NULL) || (cfg->csd && cfg->kv == NULL))
        return err_set(why, -EINVAL, "a namespace is one block or one KV device");
    nsid = cfg->nsid != 0 ? cfg->nsid : free_nsid(s);
    if (nsid == 0 || nsid > NVMF_NSID_MAX)
        return err_set(why, -EINVAL, "namespaces have the numbers 1 to %u", NVMF_NSID_MAX);
    if (s->taken[nsid])
        return err_set(why, -EEXIST, "%s has a namespace %u already", nqn, nsid);
    ns = ns_new(s, nsid);
    if (ns == NULL)
        return err_set(why, -ENOMEM, "no memory for a namespace");
    s->taken[nsid] = true;
    rc = ns_open(t, ns, cfg, why);
    if (rc < 0) {
        if (why != NULL && why->text[0] == '\0')
            err_set(why, rc, "namespace %u: %s", nsid, err_str(rc));
        ns_close(t, ns);
        return rc;
    }
    nvmf_each_reactor(t, tgt, publish_local, ns);
    if (ns->blk != NULL)
        blk_watch_add(ns->blk, &ns->blk_watch);
    else
        kv_watch_add(ns->kv, &ns->kv_watch);
    nvmf_each_reactor(t, tgt, tell_local, ns);
    if (out_nsid != NULL)
        *out_nsid = nsid;
    return 0;
}

int nvmf_ns_remove(struct rt_task *t, struct nvmf_target *tgt, const char *nqn, uint32_t nsid,
                   struct err *why)
{
    struct nvmf_subsys *s = nvmf_subsys_find(tgt, nqn);
    struct nvmf_ns *ns = s != NULL && nsid <= NVMF_NSID_MAX ? s->table[0][nsid] : NULL;

    if (ns == NULL)
        return err_set(why, -ENOENT, "%s has no namespace %u", nqn, nsid);
    if (ns->removing)
        return err_set(why, -EBUSY, "namespace %u of %s is being changed", nsid, nqn);
    ns->removing = true;
    rt_task_shield(t, true);
    while (ns->holds > 0)
        rt_sleep(t, NS_PER_MS);
    if (ns->blk != NULL)
        blk_watch_del(t, ns->blk, &ns->blk_watch);
    else
        kv_watch_del(t, ns->kv, &ns->kv_watch);
    nvmf_each_reactor(t, tgt, retire_local, ns);
    query_results_drop_place(tgt->results, ns->id);
    nvmf_each_reactor(t, tgt, tell_local, ns);
    ns_close(t, ns);
    rt_task_shield(t, false);
    return 0;
}

void nvmf_subsys_end(struct rt_task *t, struct nvmf_subsys *s)
{
    s->removing = true;
    rt_task_shield(t, true);
    disconnect(t, s, NULL);
    for (uint32_t i = 1; i <= NVMF_NSID_MAX; i++) {
        /* One that is being added or removed just now will have been, soon. */
        while (s->taken[i] && nvmf_ns_remove(t, s->tgt, s->nqn, i, NULL) < 0)
            rt_sleep(t, NS_PER_MS);
    }
    list_del(&s->link);
    subsys_free(s);
    rt_task_shield(t, false);
}

int nvmf_subsys_remove(struct rt_task *t, struct nvmf_target *tgt, const char *nqn, struct err *why)
{
    struct nvmf_subsys *s = find_user(tgt, nqn, why);

    if (s == NULL)
        return -ENOENT;
    nvmf_subsys_end(t, s);
    nvmf_discovery_changed(t, tgt);
    return 0;
}
