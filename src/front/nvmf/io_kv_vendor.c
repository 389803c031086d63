/* SPDX-License-Identifier: Apache-2.0 */
#include "front/nvmf/internal.h"

uint32_t nvmf_kv_vendor_effects(uint8_t opc)
{
    return 0;
}

void nvmf_io_kv_vendor(struct nvmf_cmd *cmd, struct bytes data)
{
    nvmf_cmd_complete(cmd, NVME_SC_INVALID_OPCODE | NVME_SC_DNR);
}

void nvmf_handles_end(struct nvmf_conn *c, const struct nvmf_ns *ns)
{
}
