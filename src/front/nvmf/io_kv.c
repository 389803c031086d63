/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key Value commands of the standard set, and what the CSD dialect has in common with them (the
 * rest is in io_csd.c). A value that fits a buffer moves by one request, a larger one as a stream
 * by a task, whatever its size.
 */
#include "front/nvmf/internal.h"
#include "proto/nvme_select.h"

#include <string.h>

#define INVALID (NVME_SC_INVALID_FIELD | NVME_SC_DNR)
#define LIST_SCRATCH 8192u /* room for keys as the device lists them, after the page */

/* --- requests --------------------------------------------------------------------------------- */

struct kv_req *nvmf_kv_req(struct nvmf_cmd *cmd, uint8_t op)
{
    struct kv_req *r = &cmd->kv;

    r->op = op;
    r->flags = 0;
    r->iov = cmd->iov;
    r->iovcnt = 1;
    r->key = bytes_make(cmd->key, cmd->key_len);
    r->prefix = bytes_make(NULL, 0);
    r->off = 0;
    r->len = 0;
    r->version = 0;
    r->stream = NULL;
    r->snap = NULL;
    return r;
}

int nvmf_kv(struct rt_task *t, struct nvmf_cmd *cmd)
{
    if (cmd->ns == NULL)
        return -ENODEV;
    rt_req_init_task(&cmd->kv.req, t);
    kv_submit(nvmf_cmd_use(cmd)->kv, &cmd->kv);
    return rt_wait(t, &cmd->kv.req);
}

static void submit(struct nvmf_cmd *cmd, rt_req_fn done)
{
    rt_req_init(&cmd->kv.req, done);
    cmd->kv.req.trace_id = cmd->trace_id;
    cmd->state = NVMF_CMD_DEVICE;
    kv_submit(nvmf_cmd_use(cmd)->kv, &cmd->kv);
}

/* The CSD dialect has six statuses; what none of them means is 88h, "error". */
static uint16_t csd_status(int rc)
{
    switch (rc) {
    case 0:
        return NVME_SC_SUCCESS;
    case -ENOENT:
        return NVME_SC_KV_KEY_NOT_EXIST | NVME_SC_DNR;
    case -EEXIST:
        return NVME_SC_KV_KEY_EXISTS | NVME_SC_DNR;
    case -ENAMETOOLONG:
        return NVME_SC_KV_INVALID_KEY_SIZE | NVME_SC_DNR;
    case -ENOSPC:
    case -EROFS:
    case -ENODEV:
    case -ECANCELED:
    case -ENOMEM:
        return nvme_status_of_errno(rc, NVME_FOR_KV); /* any command of NVMe may say that */
    default:
        return NVME_SC_KV_UNRECOVERED | NVME_SC_DNR;
    }
}

uint16_t nvmf_kv_status(const struct nvmf_cmd *cmd, int rc)
{
    return cmd->csd ? csd_status(rc) : nvme_status_of_errno(rc, NVME_FOR_KV);
}

static void simple_done(struct rt_req *req)
{
    struct nvmf_cmd *cmd = container_of(req, struct nvmf_cmd, kv.req);

    nvmf_cmd_complete(cmd, nvmf_kv_status(cmd, req->rc));
}

static uint32_t size_dw0(uint64_t len)
{
    return (uint32_t)MIN(len, (uint64_t)UINT32_MAX);
}

/* Ends a stream whatever has happened; the command may have been cancelled. */
static void end_stream(struct rt_task *t, struct nvmf_cmd *cmd, struct kv_stream *stream,
                       uint8_t op)
{
    nvmf_kv_req(cmd, op)->stream = stream;
    rt_task_shield(t, true);
    nvmf_kv(t, cmd);
    rt_task_shield(t, false);
}

/* --- Store ------------------------------------------------------------------------------------ */

static uint32_t store_flags(const struct nvmf_cmd *cmd)
{
    uint8_t so = nvme_kv_options(&cmd->sqe);
    uint32_t flags = KV_F_NO_VERSION;

    flags |= so & NVME_KV_STORE_MUST_EXIST ? KV_F_MUST_EXIST : 0;
    flags |= so & NVME_KV_STORE_MUST_NOT_EXIST ? KV_F_MUST_NOT_EXIST : 0;
    if (cmd->csd)
        flags |= so & NVME_CSD_STORE_APPEND ? KV_F_APPEND : 0;
    return flags;
}

static void store_whole(struct nvmf_cmd *cmd)
{
    struct kv_req *r = nvmf_kv_req(cmd, KV_STORE);

    r->flags = store_flags(cmd);
    r->len = cmd->data_len;
    r->iovcnt = cmd->data_len > 0 ? 1 : 0;
    submit(cmd, simple_done);
}

/* A Store that will be refused for what is there now is refused before the host sends its data. */
static int check_condition(struct rt_task *t, struct nvmf_cmd *cmd)
{
    uint32_t flags = store_flags(cmd);
    int rc;

    if ((flags & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST)) == 0)
        return 0;
    nvmf_kv_req(cmd, KV_STAT)->flags = KV_F_NO_VERSION;
    rc = nvmf_kv(t, cmd);
    if (flags & KV_F_MUST_EXIST)
        return rc;
    if (rc == 0)
        return -EEXIST;
    return rc == -ENOENT ? 0 : rc;
}

static int store_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    struct nvmf_in *in = cmd->in;
    struct kv_stream *stream;
    struct nvmf_part part;
    struct kv_req *r;
    int rc = check_condition(t, cmd);

    if (rc < 0)
        return nvmf_kv_status(cmd, rc);
    r = nvmf_kv_req(cmd, KV_STORE_OPEN);
    r->flags = store_flags(cmd);
    r->len = in->total;
    rc = nvmf_kv(t, cmd);
    if (rc < 0)
        return nvmf_kv_status(cmd, rc);
    stream = r->stream;
    nvmf_in_start(in);
    while ((rc = nvmf_in_next(t, in, &part)) > 0) {
        r = nvmf_kv_req(cmd, KV_WRITE);
        r->stream = stream;
        cmd->iov[0] = (struct iovec){.iov_base = part.data, .iov_len = part.len};
        r->len = part.len;
        rc = nvmf_kv(t, cmd);
        if (rc < 0)
            break;
    }
    if (rc < 0) {
        end_stream(t, cmd, stream, KV_ABORT);
        return in->status != 0 ? in->status : nvmf_kv_status(cmd, rc);
    }
    r = nvmf_kv_req(cmd, KV_COMMIT);
    r->stream = stream;
    return nvmf_kv_status(cmd, nvmf_kv(t, cmd));
}

void nvmf_kv_store(struct nvmf_cmd *cmd, struct bytes data)
{
    const struct kv_info *info = kv_info(cmd->ns->kv);
    uint32_t len = le32_get(cmd->sqe.cdw10);
    uint32_t conditions = store_flags(cmd) & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST);

    if (conditions == (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST))
        nvmf_cmd_complete(cmd, cmd->csd ? csd_status(-EINVAL) : INVALID);
    else if (UNLIKELY(cmd->ns->read_only))
        nvmf_cmd_complete(cmd, NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR);
    else if (UNLIKELY(len > info->val_max))
        nvmf_cmd_complete(cmd, nvmf_kv_status(cmd, -EFBIG));
    else
        nvmf_cmd_data(cmd, data, len, 1, store_whole, store_task, conditions != 0);
}

/* --- Retrieve --------------------------------------------------------------------------------- */

static void retrieve_done(struct rt_req *req)
{
    struct nvmf_cmd *cmd = container_of(req, struct nvmf_cmd, kv.req);

    if (req->rc < 0) {
        nvmf_cmd_complete(cmd, nvmf_kv_status(cmd, req->rc));
        return;
    }
    cmd->dw0 = size_dw0(cmd->kv.value_len);
    nvmf_cmd_complete_data(cmd, (uint32_t)cmd->kv.moved);
}

/* Where a Retrieve begins: the CSD dialect's can do that. */
static uint32_t retrieve_off(const struct nvmf_cmd *cmd)
{
    return cmd->csd ? le32_get(cmd->sqe.cdw12) : 0;
}

static void retrieve_with_buffer(struct nvmf_cmd *cmd)
{
    struct kv_req *r = nvmf_kv_req(cmd, KV_RETRIEVE);

    r->flags = KV_F_NO_VERSION;
    r->off = retrieve_off(cmd);
    r->len = cmd->out_len;
    submit(cmd, retrieve_done);
}

/* Only the length is wanted. */
static void size_done(struct rt_req *req)
{
    struct nvmf_cmd *cmd = container_of(req, struct nvmf_cmd, kv.req);

    if (req->rc == 0)
        cmd->dw0 = size_dw0(cmd->kv.value_len);
    nvmf_cmd_complete(cmd, nvmf_kv_status(cmd, req->rc));
}

/* Sends `total` bytes of a stream from `from` on. Status. */
int nvmf_send_stream(struct rt_task *t, struct nvmf_cmd *cmd, struct kv_stream *stream,
                     uint64_t from, uint32_t total)
{
    for (uint32_t off = 0; off < total;) {
        uint32_t n = MIN(total - off, RT_BUF_LARGE_BYTES);
        struct nvmf_piece *p = nvmf_out_take(t, cmd->conn, n);
        struct kv_req *r = nvmf_kv_req(cmd, KV_READ);
        int rc;

        if (p == NULL)
            return NVME_SC_ABORT_REQ | NVME_SC_DNR;
        r->stream = stream;
        r->off = from + off;
        r->len = n;
        cmd->iov[0] = (struct iovec){.iov_base = p->buf->data, .iov_len = n};
        rc = nvmf_kv(t, cmd);
        if (rc == 0 && r->moved != n)
            rc = -EIO; /* the stream is one version: it cannot have become shorter */
        if (rc < 0) {
            nvmf_out_drop(p);
            return nvmf_kv_status(cmd, rc);
        }
        nvmf_out_send(cmd, p, off, n, off + n == total);
        off += n;
    }
    return NVME_SC_SUCCESS;
}

static int retrieve_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    uint32_t hbs = le32_get(cmd->sqe.cdw10), off = retrieve_off(cmd);
    struct kv_req *r = nvmf_kv_req(cmd, KV_RETRIEVE_OPEN);
    struct kv_stream *stream;
    uint64_t len, rest;
    int rc, status;

    r->flags = KV_F_NO_VERSION;
    rc = nvmf_kv(t, cmd);
    if (rc < 0)
        return nvmf_kv_status(cmd, rc);
    stream = r->stream;
    len = r->value_len;
    rest = off < len ? len - off : 0;
    status = nvmf_send_stream(t, cmd, stream, off, (uint32_t)MIN(rest, (uint64_t)hbs));
    end_stream(t, cmd, stream, KV_READ_CLOSE);
    if (status == NVME_SC_SUCCESS)
        cmd->dw0 = size_dw0(len);
    return status;
}

/* The host's buffer, in CDW10: 0 when it is good. */
uint16_t nvmf_kv_check_buffer(const struct nvmf_cmd *cmd)
{
    uint32_t hbs = le32_get(cmd->sqe.cdw10);

    if (hbs > cmd->sgl_len)
        return NVME_SC_SGL_INVALID_LENGTH | NVME_SC_DNR;
    if (hbs > 0 && cmd->in_capsule)
        return NVME_SC_SGL_INVALID_TYPE | NVME_SC_DNR;
    return NVME_SC_SUCCESS;
}

void nvmf_kv_retrieve(struct nvmf_cmd *cmd)
{
    uint32_t hbs = le32_get(cmd->sqe.cdw10);
    uint16_t status = nvmf_kv_check_buffer(cmd);

    if (UNLIKELY(status != NVME_SC_SUCCESS)) {
        nvmf_cmd_complete(cmd, status);
    } else if (UNLIKELY(hbs == 0)) {
        nvmf_kv_req(cmd, KV_STAT)->flags = KV_F_NO_VERSION;
        submit(cmd, size_done);
    } else if (hbs <= RT_BUF_LARGE_BYTES) {
        nvmf_out_begin(cmd, hbs, retrieve_with_buffer);
    } else {
        nvmf_cmd_task(cmd, retrieve_task);
    }
}

/* --- List ------------------------------------------------------------------------------------- */

struct lister {
    struct nvme_kv_list_page page;
    uint8_t *last; /* KV_KEY_MAX bytes: where the device goes on */
    uint32_t last_len;
    bool full;
    uint32_t matched; /* CSD: keys from the first on, those that are left out too */
};

/* Keys longer than a command can name, which other front ends have made, are no keys here. */
static void add_key(const struct nvmf_cmd *cmd, struct lister *l, struct bytes key)
{
    if (key.len <= NVME_KV_KEY_MAX) {
        if (!l->full)
            l->full =
                !(cmd->csd ? nvme_csd_list_put(&l->page, key) : nvme_kv_list_put(&l->page, key));
        l->matched++;
    }
    memcpy(l->last, key.ptr, key.len);
    l->last_len = (uint32_t)key.len;
}

/* The dialect tells how many keys there are in all. Of a large store that would be a long walk for
 * each page; a host sees from any number above NRK that there are more. */
#define LIST_COUNT_MAX 65536u

/* Whether there is more to list, and a reason to. */
static bool go_on(const struct nvmf_cmd *cmd, const struct lister *l)
{
    if (!cmd->kv.more || cmd->kv.nkeys == 0)
        return false;
    return !l->full || (cmd->csd && l->matched < l->page.nkeys + LIST_COUNT_MAX);
}

static int list_page(struct rt_task *t, struct nvmf_cmd *cmd, uint8_t *scratch, struct lister *l)
{
    uint32_t flags = 0;
    int rc;

    do {
        struct kv_req *r = nvmf_kv_req(cmd, KV_LIST);
        struct kv_list_iter it;
        struct bytes key;

        r->flags = flags;
        r->key = bytes_make(l->last, l->last_len);
        cmd->iov[0] = (struct iovec){.iov_base = scratch, .iov_len = LIST_SCRATCH - KV_KEY_MAX};
        r->len = cmd->iov[0].iov_len;
        rc = nvmf_kv(t, cmd);
        if (rc < 0)
            return rc;
        it = kv_list_begin(scratch, cmd->kv.moved);
        while (kv_list_next(&it, &key))
            add_key(cmd, l, key);
        flags = KV_F_AFTER;
    } while (go_on(cmd, l));
    return 0;
}

static int list_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    uint32_t cap = MIN(le32_get(cmd->sqe.cdw10), RT_BUF_LARGE_BYTES - LIST_SCRATCH);
    struct lister l = {.last_len = cmd->key_len};
    struct nvmf_piece *p;
    uint8_t *scratch;
    int rc;

    if (!cmd->csd)
        cap &= ~3u;
    p = nvmf_out_take(t, cmd->conn, cap + LIST_SCRATCH);
    if (p == NULL)
        return NVME_SC_ABORT_REQ | NVME_SC_DNR;
    scratch = p->buf->data + cap;
    l.last = scratch + LIST_SCRATCH - KV_KEY_MAX;
    nvme_kv_list_init(&l.page, p->buf->data, cap);
    memcpy(l.last, cmd->key, cmd->key_len);
    rc = list_page(t, cmd, scratch, &l);
    if (rc < 0) {
        nvmf_out_drop(p);
        return nvmf_kv_status(cmd, rc);
    }
    if (cmd->csd)
        cmd->dw0 = l.matched;
    nvmf_out_send(cmd, p, 0, (uint32_t)l.page.used, true);
    return NVME_SC_SUCCESS;
}

void nvmf_kv_list(struct nvmf_cmd *cmd)
{
    uint16_t status = nvmf_kv_check_buffer(cmd);

    if (status == NVME_SC_SUCCESS && le32_get(cmd->sqe.cdw10) < NVME_KV_LIST_HEAD_BYTES)
        status = cmd->csd ? NVME_SC_CMD_SIZE_LIMIT | NVME_SC_DNR : INVALID;
    if (status != NVME_SC_SUCCESS)
        nvmf_cmd_complete(cmd, status);
    else
        nvmf_cmd_task(cmd, list_task);
}

/* --- Delete, Exist, Flush --------------------------------------------------------------------- */

static void delete_done(struct rt_req *req)
{
    struct nvmf_cmd *cmd = container_of(req, struct nvmf_cmd, kv.req);
    int rc = req->rc;

    if (rc == -ENOENT && !cmd->csd &&
        !(atomic_load_explicit(&cmd->ns->kv_config, memory_order_relaxed) & NVME_KV_CONFIG_EDNEK))
        rc = 0;
    nvmf_cmd_complete(cmd, nvmf_kv_status(cmd, rc));
}

void nvmf_kv_delete(struct nvmf_cmd *cmd)
{
    if (cmd->ns->read_only) {
        nvmf_cmd_complete(cmd, NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR);
        return;
    }
    nvmf_kv_req(cmd, KV_DELETE)->iovcnt = 0;
    submit(cmd, delete_done);
}

void nvmf_kv_exist(struct nvmf_cmd *cmd)
{
    nvmf_kv_req(cmd, KV_STAT)->flags = KV_F_NO_VERSION;
    submit(cmd, simple_done);
}

void nvmf_kv_flush(struct nvmf_cmd *cmd)
{
    nvmf_kv_req(cmd, KV_FLUSH);
    submit(cmd, simple_done);
}

/* --- all -------------------------------------------------------------------------------------- */

uint32_t nvmf_kv_effects(uint8_t opc)
{
    switch (opc) {
    case NVME_KV_STORE:
    case NVME_KV_DELETE:
        return NVME_EFFECT_CSUPP | NVME_EFFECT_LBCC;
    case NVME_OPC_FLUSH:
    case NVME_KV_RETRIEVE:
    case NVME_KV_LIST:
    case NVME_KV_EXIST:
        return NVME_EFFECT_CSUPP;
    default:
        return nvmf_kv_vendor_effects(opc);
    }
}

/* The key of the commands that have one; the status when it is none. */
static uint16_t take_key(struct nvmf_cmd *cmd)
{
    bool list = cmd->sqe.opc == NVME_KV_LIST;
    int n = nvme_kv_key_get(&cmd->sqe, list, cmd->key);

    if (UNLIKELY(n < 0 || (uint32_t)n > kv_info(cmd->ns->kv)->key_max))
        return NVME_SC_KV_INVALID_KEY_SIZE | NVME_SC_DNR;
    cmd->key_len = (uint32_t)n;
    return NVME_SC_SUCCESS;
}

void nvmf_io_kv(struct nvmf_cmd *cmd, struct bytes data)
{
    uint16_t status = NVME_SC_SUCCESS;

    if (UNLIKELY((cmd->sqe.flags & NVME_SQE_FUSE_MASK) != 0))
        status = INVALID;
    else if (UNLIKELY(nvmf_kv_effects(cmd->sqe.opc) == 0))
        status = NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
    else if (LIKELY(cmd->sqe.opc != NVME_OPC_FLUSH))
        status = take_key(cmd);
    if (UNLIKELY(status != NVME_SC_SUCCESS)) {
        nvmf_cmd_complete(cmd, status);
        return;
    }
    switch (cmd->sqe.opc) {
    case NVME_KV_STORE:
        nvmf_kv_store(cmd, data);
        break;
    case NVME_KV_RETRIEVE:
        nvmf_kv_retrieve(cmd);
        break;
    case NVME_KV_LIST:
        nvmf_kv_list(cmd);
        break;
    case NVME_KV_DELETE:
        nvmf_kv_delete(cmd);
        break;
    case NVME_KV_EXIST:
        nvmf_kv_exist(cmd);
        break;
    default:
        nvmf_kv_flush(cmd);
        break;
    }
}
