/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CSD dialect: key-value commands on a namespace of the NVM command set, with keys as
 * big-endian numbers. docs/protocols/csd.md has it byte by byte. Storing, retrieving and listing
 * are io_kv.c's; the blocks of such a namespace read as zeroes and cannot be written.
 */
#include "front/nvmf/internal.h"
#include "proto/nvme_select.h"

#include <string.h>

#define CSD_BLOCKS_UNKNOWN (1ull << 31) /* 1 TiB, where the device does not know its size */
#define CSD_BLOCKS_MAX (1ull << 53)     /* 4 EiB: what a host can count in bytes */

uint64_t nvmf_csd_blocks(const struct nvmf_ns *ns)
{
    uint64_t blocks = kv_info(ns->kv)->size_bytes >> ns->block_shift;

    if (kv_info(ns->kv)->size_bytes == 0)
        return CSD_BLOCKS_UNKNOWN;
    return MIN(MAX(blocks, 1u), CSD_BLOCKS_MAX);
}

/* --- blocks ----------------------------------------------------------------------------------- */

static void zeroes_with_buffer(struct nvmf_cmd *cmd)
{
    memset(cmd->iov[0].iov_base, 0, cmd->out_len);
    nvmf_cmd_complete_data(cmd, cmd->out_len);
}

static int zeroes_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    for (uint32_t off = 0; off < cmd->data_len;) {
        uint32_t n = MIN(cmd->data_len - off, RT_BUF_LARGE_BYTES);
        struct nvmf_piece *p = nvmf_out_take(t, cmd->conn, n);

        if (p == NULL)
            return NVME_SC_ABORT_REQ | NVME_SC_DNR;
        memset(p->buf->data, 0, n);
        nvmf_out_send(cmd, p, off, n, off + n == cmd->data_len);
        off += n;
    }
    return NVME_SC_SUCCESS;
}

static void do_read(struct nvmf_cmd *cmd)
{
    uint64_t blocks = nvmf_csd_blocks(cmd->ns), slba = nvme_slba(&cmd->sqe);
    uint32_t nlb = nvme_nlb(&cmd->sqe);

    cmd->data_len = nlb << cmd->ns->block_shift;
    if (cmd->data_len != cmd->sgl_len)
        nvmf_cmd_complete(cmd, NVME_SC_SGL_INVALID_LENGTH | NVME_SC_DNR);
    else if (cmd->in_capsule)
        nvmf_cmd_complete(cmd, NVME_SC_SGL_INVALID_TYPE | NVME_SC_DNR);
    else if (nlb > blocks || slba > blocks - nlb)
        nvmf_cmd_complete(cmd, NVME_SC_LBA_RANGE | NVME_SC_DNR);
    else if (cmd->data_len <= RT_BUF_LARGE_BYTES)
        nvmf_out_begin(cmd, cmd->data_len, zeroes_with_buffer);
    else
        nvmf_cmd_task(cmd, zeroes_task);
}

/* --- all -------------------------------------------------------------------------------------- */

uint32_t nvmf_csd_effects(uint8_t opc)
{
    switch (opc) {
    case NVME_KV_AM_STORE:
    case NVME_KV_DELETE:
        return NVME_EFFECT_CSUPP | NVME_EFFECT_LBCC;
    case NVME_OPC_FLUSH:
    case NVME_OPC_READ:
    case NVME_KV_AM_RETRIEVE:
    case NVME_KV_LIST:
    case NVME_KV_EXIST:
        return NVME_EFFECT_CSUPP;
    default:
        return 0;
    }
}

static uint16_t take_key(struct nvmf_cmd *cmd)
{
    int n = nvme_kv_key_get_be(&cmd->sqe, cmd->sqe.opc == NVME_KV_LIST, cmd->key);

    if (n < 0 || (uint32_t)n > kv_info(cmd->ns->kv)->key_max)
        return NVME_SC_KV_INVALID_KEY_SIZE | NVME_SC_DNR;
    cmd->key_len = (uint32_t)n;
    return NVME_SC_SUCCESS;
}

static void by_key(struct nvmf_cmd *cmd, struct bytes data)
{
    uint16_t status = take_key(cmd);

    if (status != NVME_SC_SUCCESS) {
        nvmf_cmd_complete(cmd, status);
        return;
    }
    switch (cmd->sqe.opc) {
    case NVME_KV_AM_STORE:
        nvmf_kv_store(cmd, data);
        break;
    case NVME_KV_AM_RETRIEVE:
        nvmf_kv_retrieve(cmd);
        break;
    case NVME_KV_LIST:
        nvmf_kv_list(cmd);
        break;
    case NVME_KV_DELETE:
        nvmf_kv_delete(cmd);
        break;
    default:
        nvmf_kv_exist(cmd);
        break;
    }
}

void nvmf_io_csd(struct nvmf_cmd *cmd, struct bytes data)
{
    cmd->csd = true;
    if ((cmd->sqe.flags & NVME_SQE_FUSE_MASK) != 0) {
        nvmf_cmd_complete(cmd, NVME_SC_INVALID_FIELD | NVME_SC_DNR);
        return;
    }
    switch (cmd->sqe.opc) {
    case NVME_OPC_FLUSH:
        nvmf_kv_flush(cmd);
        break;
    case NVME_OPC_READ:
        do_read(cmd);
        break;
    case NVME_OPC_WRITE:
    case NVME_OPC_WRITE_ZEROES:
    case NVME_OPC_DSM:
        nvmf_cmd_complete(cmd, NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR);
        break;
    case NVME_KV_AM_STORE:
    case NVME_KV_AM_RETRIEVE:
    case NVME_KV_LIST:
    case NVME_KV_DELETE:
    case NVME_KV_EXIST:
        by_key(cmd, data);
        break;
    default:
        nvmf_cmd_complete(cmd, NVME_SC_INVALID_OPCODE | NVME_SC_DNR);
        break;
    }
}
