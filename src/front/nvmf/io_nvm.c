/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVM commands. One that fits a buffer is one block request; larger ones move in parts by a task.
 */
#include "front/nvmf/internal.h"

#include <string.h>

#define INVALID (NVME_SC_INVALID_FIELD | NVME_SC_DNR)
#define BAD_LENGTH (NVME_SC_SGL_INVALID_LENGTH | NVME_SC_DNR)

uint32_t nvmf_nvm_effects(uint8_t opc)
{
    switch (opc) {
    case NVME_OPC_FLUSH:
    case NVME_OPC_READ:
    case NVME_OPC_COMPARE:
        return NVME_EFFECT_CSUPP;
    case NVME_OPC_WRITE:
    case NVME_OPC_WRITE_ZEROES:
    case NVME_OPC_DSM:
        return NVME_EFFECT_CSUPP | NVME_EFFECT_LBCC;
    default:
        return 0;
    }
}

/* --- one request ------------------------------------------------------------------------------ */

static void blk_done(struct rt_req *req)
{
    struct nvmf_cmd *cmd = container_of(req, struct nvmf_cmd, blk.req);

    if (LIKELY(req->rc == 0) && cmd->is_read)
        nvmf_cmd_complete_data(cmd, cmd->data_len);
    else
        nvmf_cmd_complete(cmd, nvme_status_of_errno(req->rc, cmd->for_what));
}

static void fill_blk(struct nvmf_cmd *cmd, uint8_t op, uint8_t flags, uint64_t lba,
                     uint32_t nblocks)
{
    struct blk_req *r = &cmd->blk;

    r->op = op;
    r->flags = flags;
    r->lba = lba;
    r->nblocks = nblocks;
    r->iov = cmd->iov;
    r->iovcnt = cmd->data_len > 0 ? 1 : 0;
}

static uint8_t fua(const struct nvmf_cmd *cmd)
{
    return le32_get(cmd->sqe.cdw12) & NVME_CDW12_FUA ? BLK_F_FUA : 0;
}

static void submit(struct nvmf_cmd *cmd, uint8_t op, uint8_t flags)
{
    rt_req_init(&cmd->blk.req, blk_done);
    cmd->blk.req.trace_id = cmd->trace_id;
    fill_blk(cmd, op, flags, nvme_slba(&cmd->sqe), nvme_nlb(&cmd->sqe));
    cmd->state = NVMF_CMD_DEVICE;
    blk_submit(nvmf_cmd_use(cmd)->blk, &cmd->blk);
}

int nvmf_blk(struct rt_task *t, struct nvmf_cmd *cmd, uint8_t op, uint8_t flags, uint64_t lba,
             uint32_t nblocks, void *data)
{
    struct nvmf_ns *ns = cmd->ns;

    if (ns == NULL || nvmf_cmd_use(cmd)->gone)
        return -ENODEV;
    cmd->iov[0] = (struct iovec){.iov_base = data, .iov_len = (size_t)nblocks << ns->block_shift};
    rt_req_init_task(&cmd->blk.req, t);
    fill_blk(cmd, op, flags, lba, nblocks);
    cmd->blk.iovcnt = data != NULL ? 1 : 0;
    blk_submit(nvmf_cmd_use(cmd)->blk, &cmd->blk);
    return rt_wait(t, &cmd->blk.req);
}

/* --- checks ----------------------------------------------------------------------------------- */

static uint16_t check_range(const struct nvmf_cmd *cmd)
{
    uint64_t nblocks = __atomic_load_n(&blk_info(cmd->ns->blk)->nblocks, __ATOMIC_RELAXED);
    uint64_t slba = nvme_slba(&cmd->sqe);
    uint32_t nlb = nvme_nlb(&cmd->sqe);

    if (UNLIKELY(nlb > nblocks || slba > nblocks - nlb))
        return NVME_SC_LBA_RANGE | NVME_SC_DNR;
    return NVME_SC_SUCCESS;
}

/* For commands whose data is the blocks: range, and the host's buffer is as large as they are. */
static uint16_t check_blocks(struct nvmf_cmd *cmd)
{
    uint64_t len = (uint64_t)nvme_nlb(&cmd->sqe) << cmd->ns->block_shift;

    cmd->data_len = (uint32_t)len;
    if (UNLIKELY(len != cmd->sgl_len))
        return BAD_LENGTH;
    return check_range(cmd);
}

/* --- data of any kind of command -------------------------------------------------------------- */

/* A device that wants aligned memory gets a copy, so that it does not have to make one. */
static bool take_copy(struct nvmf_cmd *cmd, struct bytes data, uint32_t len)
{
    cmd->buf = rt_buf_get(len);
    if (cmd->buf == NULL)
        return false;
    memcpy(cmd->buf->data, data.ptr, len);
    cmd->iov[0] = (struct iovec){.iov_base = cmd->buf->data, .iov_len = len};
    return true;
}

void nvmf_cmd_data(struct nvmf_cmd *cmd, struct bytes data, uint32_t len, uint32_t unit,
                   void (*whole)(struct nvmf_cmd *cmd),
                   int (*task)(struct rt_task *t, struct nvmf_cmd *cmd), bool by_task)
{
    if (UNLIKELY(cmd->sgl_len < len)) {
        nvmf_cmd_complete(cmd, BAD_LENGTH);
        return;
    }
    cmd->data_len = len;
    if (!cmd->in_capsule && len > 0) {
        nvmf_in_begin(cmd, len, unit, by_task ? NULL : whole, task);
        return;
    }
    cmd->iov[0] = (struct iovec){.iov_base = (void *)(uintptr_t)data.ptr, .iov_len = len};
    if (len > 0 && !(cmd->ns->copies && len <= RT_BUF_SMALL_BYTES && take_copy(cmd, data, len)))
        cmd->rxb = nvmf_rx_pin(cmd->conn);
    whole(cmd);
}

/* --- Read ------------------------------------------------------------------------------------- */

static void read_with_buffer(struct nvmf_cmd *cmd)
{
    cmd->is_read = true;
    submit(cmd, BLK_READ, 0);
}

static int read_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    unsigned shift = cmd->ns->block_shift;
    uint64_t lba = nvme_slba(&cmd->sqe);
    uint32_t total = cmd->data_len, off = 0;

    while (off < total) {
        uint32_t n = MIN(total - off, RT_BUF_LARGE_BYTES);
        struct nvmf_piece *p = nvmf_out_take(t, cmd->conn, n);
        int rc;

        if (p == NULL)
            return NVME_SC_ABORT_REQ;
        rc = nvmf_blk(t, cmd, BLK_READ, 0, lba + (off >> shift), n >> shift, p->buf->data);
        if (rc < 0) {
            nvmf_out_drop(p);
            return nvme_status_of_errno(rc, NVME_FOR_READ);
        }
        nvmf_out_send(cmd, p, off, n, off + n == total);
        off += n;
    }
    return NVME_SC_SUCCESS;
}

static void do_read(struct nvmf_cmd *cmd)
{
    uint16_t status = check_blocks(cmd);

    cmd->for_what = NVME_FOR_READ;
    if (UNLIKELY(status != NVME_SC_SUCCESS))
        nvmf_cmd_complete(cmd, status);
    else if (UNLIKELY(cmd->in_capsule))
        nvmf_cmd_complete(cmd, NVME_SC_SGL_INVALID_TYPE | NVME_SC_DNR);
    else if (LIKELY(cmd->data_len <= RT_BUF_LARGE_BYTES))
        nvmf_out_begin(cmd, cmd->data_len, read_with_buffer);
    else
        nvmf_cmd_task(cmd, read_task);
}

/* --- Write and Compare ------------------------------------------------------------------------ */

static void write_whole(struct nvmf_cmd *cmd)
{
    submit(cmd, BLK_WRITE, fua(cmd));
}

static void compare_whole(struct nvmf_cmd *cmd)
{
    submit(cmd, BLK_COMPARE, 0);
}

/* Parts come in blocks, but for the sum of them there is no promise. */
static int parts_task(struct rt_task *t, struct nvmf_cmd *cmd, uint8_t op, uint8_t flags)
{
    unsigned shift = cmd->ns->block_shift;
    uint64_t lba = nvme_slba(&cmd->sqe);
    struct nvmf_in *in = cmd->in;
    struct nvmf_part part;
    int rc;

    nvmf_in_start(in);
    while ((rc = nvmf_in_next(t, in, &part)) > 0) {
        uint32_t n = part.len >> shift;

        must((part.len & (cmd->ns->block_bytes - 1)) == 0);
        rc = nvmf_blk(t, cmd, op, flags, lba, n, part.data);
        if (rc < 0)
            return nvme_status_of_errno(rc, cmd->for_what);
        lba += n;
    }
    return rc < 0 ? in->status : NVME_SC_SUCCESS;
}

static int write_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    return parts_task(t, cmd, BLK_WRITE, fua(cmd));
}

static int compare_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    return parts_task(t, cmd, BLK_COMPARE, 0);
}

static void do_write(struct nvmf_cmd *cmd, struct bytes data)
{
    uint16_t status = check_blocks(cmd);

    cmd->for_what = NVME_FOR_WRITE;
    if (UNLIKELY(status == NVME_SC_SUCCESS && cmd->ns->read_only))
        status = NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR;
    if (UNLIKELY(status != NVME_SC_SUCCESS))
        nvmf_cmd_complete(cmd, status);
    else
        nvmf_cmd_data(cmd, data, cmd->data_len, cmd->ns->block_bytes, write_whole, write_task,
                      false);
}

static void do_compare(struct nvmf_cmd *cmd, struct bytes data)
{
    uint16_t status = check_blocks(cmd);

    cmd->for_what = NVME_FOR_READ;
    if (status != NVME_SC_SUCCESS)
        nvmf_cmd_complete(cmd, status);
    else
        nvmf_cmd_data(cmd, data, cmd->data_len, cmd->ns->block_bytes, compare_whole, compare_task,
                      false);
}

/* --- Compare and Write, fused ----------------------------------------------------------------- */

#define FUSED_MISSING (NVME_SC_FUSED_MISSING | NVME_SC_DNR)

void nvmf_fused_missing(struct nvmf_conn *c)
{
    struct nvmf_cmd *first = c->fused;

    c->fused = NULL;
    nvmf_cmd_complete(first, FUSED_MISSING);
}

/* The first half waits, with its data, for the second: the next command of the queue. */
static void fused_first(struct nvmf_cmd *cmd, struct bytes data)
{
    uint16_t status = check_blocks(cmd);

    if (cmd->sqe.opc != NVME_OPC_COMPARE || !cmd->in_capsule)
        status = INVALID;
    if (status != NVME_SC_SUCCESS) {
        nvmf_cmd_complete(cmd, status);
        return;
    }
    cmd->iov[0] = (struct iovec){.iov_base = (void *)(uintptr_t)data.ptr, .iov_len = cmd->data_len};
    cmd->rxb = nvmf_rx_pin(cmd->conn);
    cmd->state = NVMF_CMD_FUSED;
    cmd->conn->fused = cmd;
}

static void fused_done(struct rt_req *req)
{
    struct nvmf_cmd *cmd = container_of(req, struct nvmf_cmd, blk.req);
    struct nvmf_cmd *first = cmd->fused;
    uint16_t status = nvme_status_of_errno(req->rc, NVME_FOR_WRITE);

    first->state = NVMF_CMD_ACTIVE;
    nvmf_cmd_complete(first, status);
    if (status != NVME_SC_SUCCESS)
        status = NVME_SC_FUSED_FAIL | (status & NVME_SC_DNR);
    nvmf_cmd_complete(cmd, status);
}

static void fused_second(struct nvmf_cmd *cmd, struct bytes data)
{
    struct nvmf_cmd *first = cmd->conn->fused;
    uint16_t status = check_blocks(cmd);

    cmd->conn->fused = NULL;
    if (first == NULL) {
        nvmf_cmd_complete(cmd, FUSED_MISSING);
        return;
    }
    if (cmd->sqe.opc != NVME_OPC_WRITE || !cmd->in_capsule || first->ns != cmd->ns ||
        nvme_slba(&cmd->sqe) != nvme_slba(&first->sqe) ||
        nvme_nlb(&cmd->sqe) != nvme_nlb(&first->sqe))
        status = INVALID;
    else if (status == NVME_SC_SUCCESS && cmd->ns->read_only)
        status = NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR;
    if (status != NVME_SC_SUCCESS) {
        nvmf_cmd_complete(first, NVME_SC_FUSED_FAIL | NVME_SC_DNR);
        nvmf_cmd_complete(cmd, status);
        return;
    }
    first->state = NVMF_CMD_ACTIVE;
    cmd->fused = first;
    cmd->rxb = nvmf_rx_pin(cmd->conn);
    cmd->iov[0] = first->iov[0];
    cmd->iov[1] = (struct iovec){.iov_base = (void *)(uintptr_t)data.ptr, .iov_len = cmd->data_len};
    rt_req_init(&cmd->blk.req, fused_done);
    cmd->blk.req.trace_id = cmd->trace_id;
    fill_blk(cmd, BLK_COMPARE_AND_WRITE, fua(cmd), nvme_slba(&cmd->sqe), nvme_nlb(&cmd->sqe));
    cmd->blk.iovcnt = 2;
    cmd->state = NVMF_CMD_DEVICE;
    blk_submit(nvmf_cmd_use(cmd)->blk, &cmd->blk);
}

/* --- without data, and Dataset Management ----------------------------------------------------- */

static void do_flush(struct nvmf_cmd *cmd)
{
    submit(cmd, BLK_FLUSH, 0);
}

static void do_write_zeroes(struct nvmf_cmd *cmd)
{
    uint16_t status = check_range(cmd);
    uint8_t flags = fua(cmd);

    cmd->for_what = NVME_FOR_WRITE;
    if (cmd->ns->read_only && status == NVME_SC_SUCCESS)
        status = NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR;
    if (le32_get(cmd->sqe.cdw12) & NVME_CDW12_DEAC)
        flags |= BLK_F_UNMAP;
    if (status != NVME_SC_SUCCESS)
        nvmf_cmd_complete(cmd, status);
    else
        submit(cmd, BLK_WRITE_ZEROES, flags);
}

/* All ranges are inside before the first is touched. */
static uint16_t check_ranges(const struct nvmf_cmd *cmd, const struct nvme_dsm_range *r, unsigned n)
{
    uint64_t nblocks = __atomic_load_n(&blk_info(cmd->ns->blk)->nblocks, __ATOMIC_RELAXED);

    for (unsigned i = 0; i < n; i++) {
        uint64_t slba = le64_get(r[i].slba);

        if (slba > nblocks || le32_get(r[i].nblocks) > nblocks - slba)
            return NVME_SC_LBA_RANGE | NVME_SC_DNR;
    }
    return NVME_SC_SUCCESS;
}

static int dsm_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    const struct nvme_dsm_range *r = cmd->iov[1].iov_base;
    unsigned n = cmd->data_len / sizeof(*r);
    uint16_t status = check_ranges(cmd, r, n);

    for (unsigned i = 0; i < n && status == NVME_SC_SUCCESS; i++) {
        uint32_t nblocks = le32_get(r[i].nblocks);
        int rc = 0;

        if (nblocks > 0)
            rc = nvmf_blk(t, cmd, BLK_UNMAP, 0, le64_get(r[i].slba), nblocks, NULL);
        status = nvme_status_of_errno(rc, NVME_FOR_WRITE);
    }
    return status;
}

static void dsm_whole(struct nvmf_cmd *cmd)
{
    cmd->iov[1] = cmd->iov[0];
    nvmf_cmd_task(cmd, dsm_task);
}

/* The ranges fit one buffer; when even that is not to be had the hint is dropped, as it may be. */
static int dsm_dropped(struct rt_task *t, struct nvmf_cmd *cmd)
{
    struct nvmf_part part;
    int rc;

    while ((rc = nvmf_in_next(t, cmd->in, &part)) > 0)
        continue;
    return rc < 0 ? cmd->in->status : NVME_SC_SUCCESS;
}

static void do_dsm(struct nvmf_cmd *cmd, struct bytes data)
{
    uint32_t nr = (le32_get(cmd->sqe.cdw10) & NVME_DSM_NR_MASK) + 1;

    if (!(le32_get(cmd->sqe.cdw11) & NVME_DSM_AD)) {
        nvmf_cmd_complete(cmd, NVME_SC_SUCCESS); /* other hints: nothing to do */
        return;
    }
    if (cmd->ns->read_only) {
        nvmf_cmd_complete(cmd, NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR);
        return;
    }
    nvmf_cmd_data(cmd, data, nr * (uint32_t)sizeof(struct nvme_dsm_range),
                  sizeof(struct nvme_dsm_range), dsm_whole, dsm_dropped, false);
}

void nvmf_io_nvm(struct nvmf_cmd *cmd, struct bytes data)
{
    switch (cmd->sqe.flags & NVME_SQE_FUSE_MASK) {
    case 0:
        break;
    case NVME_SQE_FUSE_FIRST:
        fused_first(cmd, data);
        return;
    case NVME_SQE_FUSE_SECOND:
        fused_second(cmd, data);
        return;
    default:
        nvmf_cmd_complete(cmd, INVALID);
        return;
    }
    switch (cmd->sqe.opc) {
    case NVME_OPC_READ:
        do_read(cmd);
        break;
    case NVME_OPC_WRITE:
        do_write(cmd, data);
        break;
    case NVME_OPC_FLUSH:
        do_flush(cmd);
        break;
    case NVME_OPC_COMPARE:
        do_compare(cmd, data);
        break;
    case NVME_OPC_WRITE_ZEROES:
        do_write_zeroes(cmd);
        break;
    case NVME_OPC_DSM:
        do_dsm(cmd, data);
        break;
    default:
        nvmf_cmd_complete(cmd, NVME_SC_INVALID_OPCODE | NVME_SC_DNR);
        break;
    }
}
