/* SPDX-License-Identifier: Apache-2.0 */
/* The discovery log: which subsystems a host may see, and at which addresses. */
#include "front/nvmf/internal.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* "0.0.0.0" and "::" are no addresses to connect to: the host gets the one it has used. */
static void entry_address(const struct nvmf_listener *l, const struct sockaddr_storage *local,
                          struct net_addr *out)
{
    *out = l->addr;
    if (l->addr.ss.ss_family == AF_INET && local->ss_family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)&out->ss;

        if (in->sin_addr.s_addr == htonl(INADDR_ANY))
            in->sin_addr = ((const struct sockaddr_in *)local)->sin_addr;
    } else if (l->addr.ss.ss_family == AF_INET6 && local->ss_family == AF_INET6) {
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)&out->ss;

        if (IN6_IS_ADDR_UNSPECIFIED(&in->sin6_addr))
            in->sin6_addr = ((const struct sockaddr_in6 *)local)->sin6_addr;
    }
}

static bool is_wildcard(const struct net_addr *a)
{
    if (a->ss.ss_family == AF_INET)
        return ((const struct sockaddr_in *)&a->ss)->sin_addr.s_addr == htonl(INADDR_ANY);
    return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)&a->ss)->sin6_addr);
}

static bool put_entry(struct nvme_discovery_entry *e, const struct nvmf_subsys *s,
                      const struct nvmf_listener *l, const struct sockaddr_storage *local)
{
    struct nvme_discovery_info info = {
        .trtype = NVME_TRTYPE_TCP,
        .adrfam = l->addr.ss.ss_family == AF_INET6 ? NVME_ADRFAM_IPV6 : NVME_ADRFAM_IPV4,
        .subtype = s->discovery ? NVME_SUBTYPE_CURRENT_DISCOVERY : NVME_SUBTYPE_NVM,
        .treq = NVME_TREQ_SECURE_NOT_REQUIRED | NVME_TREQ_DISABLE_SQFLOW,
        .sectype = NVME_TSAS_TCP_NONE,
        .portid = l->portid,
        .cntlid = NVME_CNTLID_DYNAMIC,
        .asqsz = 32,
        .eflags = s->discovery ? NVME_EFLAGS_EPCSD : 0,
    };
    struct net_addr addr;

    entry_address(l, local, &addr);
    /* A wildcard of the other address family: this host has not shown that it can use it. */
    if (is_wildcard(&addr))
        return false;
    snprintf(info.trsvcid, sizeof(info.trsvcid), "%u", net_addr_port(&addr));
    net_addr_host_text(&addr, info.traddr, sizeof(info.traddr));
    memcpy(info.subnqn, s->nqn, sizeof(info.subnqn));
    return nvme_discovery_encode(e, &info) == 0;
}

/* Those that the host may see, at one listener; how many. */
static unsigned put_subsystems(struct nvme_discovery_entry *e, const struct nvmf_listener *l,
                               const char *host_nqn, const struct sockaddr_storage *local)
{
    struct nvmf_subsys *s;
    unsigned n = 0;

    list_for_each (s, &l->tgt->subsystems, struct nvmf_subsys, link) {
        if (!s->removing && nvmf_host_allowed(s, host_nqn))
            n += put_entry(&e[n], s, l, local);
    }
    return n;
}

static unsigned count(const struct list *head)
{
    unsigned n = 0;

    for (const struct list *l = head->next; l != head; l = l->next)
        n++;
    return n;
}

int nvmf_discovery_log(struct nvmf_target *tgt, const char *host_nqn,
                       const struct sockaddr_storage *local, uint8_t **out_log, size_t *out_len)
{
    size_t max = (size_t)(count(&tgt->subsystems) + 1) * count(&tgt->listeners);
    struct nvme_discovery_head *head =
        calloc(1, sizeof(*head) + max * sizeof(struct nvme_discovery_entry));
    struct nvme_discovery_entry *e;
    struct nvmf_listener *l;
    uint64_t n = 0;

    if (head == NULL)
        return -ENOMEM;
    e = (struct nvme_discovery_entry *)(head + 1);
    list_for_each (l, &tgt->listeners, struct nvmf_listener, link) {
        n += put_entry(&e[n], tgt->discovery, l, local);
        n += put_subsystems(&e[n], l, host_nqn, local);
    }
    head->genctr = le64_make(tgt->genctr);
    head->numrec = le64_make(n);
    *out_log = (uint8_t *)head;
    *out_len = sizeof(*head) + n * sizeof(*e);
    return 0;
}

static int tell_local(struct rt_task *t, void *arg)
{
    struct nvmf_local *l = nvmf_local_of(arg);
    struct nvmf_ctrlr *ctrlr;

    list_for_each (ctrlr, &l->ctrlrs, struct nvmf_ctrlr, link) {
        nvmf_ctrlr_discovery_changed(ctrlr);
    }
    return 0;
}

void nvmf_discovery_changed(struct rt_task *t, struct nvmf_target *tgt)
{
    tgt->genctr++;
    if (!tgt->closing)
        nvmf_each_reactor(t, tgt, tell_local, tgt);
}
