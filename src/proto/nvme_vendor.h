/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our vendor specific admin command, and how a host knows that it is there:
 * docs/protocols/end-controller.md.
 */
#ifndef KVASIR_PROTO_NVME_VENDOR_H
#define KVASIR_PROTO_NVME_VENDOR_H

#include "proto/nvme_admin.h"

#include <string.h>

/** Ends controller CDW10[15:0] of the same host; completes when nothing of it is left. No data. */
#define NVME_OPC_VENDOR_END_CTRLR 0xc0

#define NVME_VENDOR_CTRL_MAGIC "KVASIRCT"
#define NVME_VENDOR_CTRL_VERSION 1u

/** Bytes 3072.. of the identify controller data. */
struct nvme_vendor_ctrl {
    char magic[8]; /*  0  NVME_VENDOR_CTRL_MAGIC, without a NUL */
    le32 version;  /*  8 */
    le32 rsvd;     /* 12 */
};
static_assert(sizeof(struct nvme_vendor_ctrl) == 16, "vendor controller data is 16 bytes");

/** Whether the controller is ours and takes NVME_OPC_VENDOR_END_CTRLR. */
static inline bool nvme_vendor_ends_ctrlrs(const struct nvme_id_ctrl *id)
{
    const struct nvme_vendor_ctrl *v = (const struct nvme_vendor_ctrl *)id->vendor;

    return memcmp(v->magic, NVME_VENDOR_CTRL_MAGIC, sizeof(v->magic)) == 0 &&
           le32_get(v->version) == NVME_VENDOR_CTRL_VERSION;
}

#endif
