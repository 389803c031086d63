/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/nvme_admin.h"

#include "base/must.h"

#include <errno.h>

const char *nvme_cns_name(uint8_t cns)
{
    switch (cns) {
    case NVME_CNS_NS:
        return "namespace";
    case NVME_CNS_CTRL:
        return "controller";
    case NVME_CNS_NS_ACTIVE_LIST:
        return "active namespace list";
    case NVME_CNS_NS_DESC_LIST:
        return "namespace descriptors";
    case NVME_CNS_CSI_NS:
        return "command set specific namespace";
    case NVME_CNS_CSI_CTRL:
        return "command set specific controller";
    case NVME_CNS_CSI_NS_ACTIVE_LIST:
        return "active namespace list of a command set";
    case NVME_CNS_CSI_INDEP_NS:
        return "command set independent namespace";
    case NVME_CNS_NS_ALLOCATED_LIST:
        return "allocated namespace list";
    case NVME_CNS_NS_ALLOCATED:
        return "allocated namespace";
    case NVME_CNS_NS_CTRL_LIST:
        return "controllers of a namespace";
    case NVME_CNS_CTRL_LIST:
        return "controllers";
    case NVME_CNS_CSI_LIST:
        return "I/O command sets";
    default:
        return "unknown";
    }
}

const char *nvme_lid_name(uint8_t lid)
{
    switch (lid) {
    case NVME_LID_SUPPORTED:
        return "supported log pages";
    case NVME_LID_ERROR:
        return "error information";
    case NVME_LID_SMART:
        return "SMART";
    case NVME_LID_FIRMWARE:
        return "firmware slots";
    case NVME_LID_CHANGED_NS:
        return "changed namespaces";
    case NVME_LID_EFFECTS:
        return "command effects";
    case NVME_LID_ANA:
        return "asymmetric access";
    case NVME_LID_DISCOVERY:
        return "discovery";
    case NVME_LID_RESERVATION:
        return "reservation notification";
    default:
        return "unknown";
    }
}

const char *nvme_fid_name(uint8_t fid)
{
    switch (fid) {
    case NVME_FID_ARBITRATION:
        return "arbitration";
    case NVME_FID_POWER:
        return "power management";
    case NVME_FID_TEMPERATURE:
        return "temperature threshold";
    case NVME_FID_ERROR_RECOVERY:
        return "error recovery";
    case NVME_FID_WRITE_CACHE:
        return "volatile write cache";
    case NVME_FID_QUEUES:
        return "number of queues";
    case NVME_FID_WRITE_ATOMIC:
        return "write atomicity";
    case NVME_FID_ASYNC_EVENT:
        return "asynchronous event configuration";
    case NVME_FID_TIMESTAMP:
        return "timestamp";
    case NVME_FID_KATO:
        return "keep alive timer";
    case NVME_FID_HOST_BEHAVIOR:
        return "host behavior support";
    case NVME_FID_IOCS_PROFILE:
        return "I/O command set profile";
    case NVME_FID_KV_CONFIG:
        return "key value configuration";
    case NVME_FID_HOST_ID:
        return "host identifier";
    case NVME_FID_RESV_MASK:
        return "reservation notification mask";
    case NVME_FID_RESV_PERSIST:
        return "reservation persistence";
    default:
        return "unknown";
    }
}

void nvme_log_put(struct nvme_sqe *sqe, uint8_t lid, uint64_t offset, uint32_t len, uint8_t csi)
{
    uint32_t numd;

    must(len > 0);
    must(len % 4 == 0);
    numd = len / 4 - 1;
    sqe->opc = NVME_OPC_GET_LOG_PAGE;
    sqe->cdw10 = le32_make(lid | (numd & 0xffff) << 16);
    sqe->cdw11 = le32_make(numd >> 16);
    sqe->cdw12 = le32_make((uint32_t)offset);
    sqe->cdw13 = le32_make((uint32_t)(offset >> 32));
    sqe->cdw14 = le32_make((uint32_t)csi << 24);
}

/* --- namespace identification descriptors ----------------------------------------------------- */

struct desc_field {
    uint8_t len;
    uint8_t *at;
};

/* Where the id of a type lives; length 0: a type not known here. */
static struct desc_field desc_field_of(struct nvme_ns_ids *ids, uint8_t nidt)
{
    switch (nidt) {
    case NVME_NIDT_EUI64:
        return (struct desc_field){sizeof(ids->eui64), ids->eui64};
    case NVME_NIDT_NGUID:
        return (struct desc_field){sizeof(ids->nguid), ids->nguid};
    case NVME_NIDT_UUID:
        return (struct desc_field){sizeof(ids->uuid), ids->uuid};
    case NVME_NIDT_CSI:
        return (struct desc_field){sizeof(ids->csi), &ids->csi};
    default:
        return (struct desc_field){0, NULL};
    }
}

int nvme_ns_desc_decode(const void *list, size_t len, struct nvme_ns_ids *out)
{
    const uint8_t *at = list;
    struct nvme_ns_ids ids = {0};

    while (len >= sizeof(struct nvme_ns_desc)) {
        const struct nvme_ns_desc *d = (const void *)at;
        struct desc_field f = desc_field_of(&ids, d->nidt);

        if (d->nidl == 0)
            break;
        if (d->nidl > len - sizeof(*d) || (f.len != 0 && f.len != d->nidl))
            return -EBADMSG;
        if (f.len != 0) {
            memcpy(f.at, at + sizeof(*d), f.len);
            ids.have |= 1u << d->nidt;
        }
        at += sizeof(*d) + d->nidl;
        len -= sizeof(*d) + d->nidl;
    }
    *out = ids;
    return 0;
}

int nvme_ns_desc_encode(void *list, size_t max, const struct nvme_ns_ids *ids)
{
    struct nvme_ns_ids copy = *ids;
    size_t used = 0;

    for (uint8_t nidt = NVME_NIDT_EUI64; nidt <= NVME_NIDT_CSI; nidt++) {
        struct desc_field f = desc_field_of(&copy, nidt);
        struct nvme_ns_desc d = {.nidt = nidt, .nidl = f.len};

        if ((ids->have & 1u << nidt) == 0)
            continue;
        if (sizeof(d) + f.len > max - used)
            return -E2BIG;
        memcpy((uint8_t *)list + used, &d, sizeof(d));
        memcpy((uint8_t *)list + used + sizeof(d), f.at, f.len);
        used += sizeof(d) + f.len;
    }
    return (int)used;
}
