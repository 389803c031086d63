/* SPDX-License-Identifier: Apache-2.0 */
#include "nvme_target.h"

#include <stdio.h>

static int serve(struct rt_task *t, struct target *x, struct err *why)
{
    struct nvmf_subsys_config subsys = {.nqn = TARGET_NQN, .allow_any_host = true};
    struct nvmf_ns_config ns = {.nsid = 1, .blk = x->blk, .kv = x->kv};
    struct net_addr want, got;
    uint32_t nsid;
    int rc;

    rc = nvmf_subsys_add(t, x->tgt, &subsys, why);
    if (rc == 0)
        rc = nvmf_ns_add(t, x->tgt, TARGET_NQN, &ns, &nsid, why);
    if (rc == 0)
        rc = net_addr_parse(x->addr[0] != '\0' ? x->addr : "127.0.0.1:0", 0, &want, why);
    if (rc == 0)
        rc = nvmf_listen(t, x->tgt, &want, &got, why);
    if (rc == 0)
        net_addr_text(&got, x->addr);
    return rc;
}

int target_start(struct rt_task *t, struct target *x, struct err *why)
{
    int rc = nvmf_target_new(&x->cfg, &x->tgt, why);

    if (rc < 0)
        return rc;
    rc = serve(t, x, why);
    if (rc < 0)
        target_stop(t, x);
    return rc;
}

void target_stop(struct rt_task *t, struct target *x)
{
    nvmf_target_close(t, take_ptr(&x->tgt));
}

int target_open(struct rt_task *t, struct target *x, struct err *why)
{
    int rc = x->blk_uri != NULL ? blk_open(t, x->blk_uri, &x->blk, why)
                                : kv_open(t, x->kv_uri, &x->kv, why);

    if (rc < 0)
        return rc;
    rc = target_start(t, x, why);
    if (rc < 0)
        target_close(t, x);
    return rc;
}

void target_close(struct rt_task *t, struct target *x)
{
    target_stop(t, x);
    if (x->blk != NULL)
        blk_close(t, take_ptr(&x->blk));
    if (x->kv != NULL)
        kv_close(t, take_ptr(&x->kv));
}

void target_uri(const struct target *x, const char *params, char *out, size_t max)
{
    snprintf(out, max, "nvme+tcp://%s/%s?nsid=1&%s", x->addr, TARGET_NQN, params);
}
