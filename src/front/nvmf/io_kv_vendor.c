/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vendor commands on KV namespaces, as docs/protocols/kv-vendor.md has them. All are carried
 * out by tasks, but for reads of a buffer from an open value.
 */
#include "front/nvmf/internal.h"
#include "proto/nvme_kv_vendor.h"

#include <string.h>

#define INVALID (NVME_SC_INVALID_FIELD | NVME_SC_DNR)
#define BAD_LENGTH (NVME_SC_SGL_INVALID_LENGTH | NVME_SC_DNR)
#define BAD_HANDLE (NVME_SC_KVV_BAD_HANDLE | NVME_SC_DNR)
#define SEQUENCE (NVME_SC_KVV_SEQUENCE | NVME_SC_DNR)

static_assert(KV_F_MUST_EXIST == NVME_KVV_F_MUST_EXIST, "flags are the same");
static_assert(KV_F_MUST_NOT_EXIST == NVME_KVV_F_MUST_NOT_EXIST, "flags are the same");
static_assert(KV_F_IF_VERSION == NVME_KVV_F_IF_VERSION, "flags are the same");
static_assert(KV_F_APPEND == NVME_KVV_F_APPEND, "flags are the same");
static_assert(KV_F_AFTER == NVME_KVV_F_AFTER, "flags are the same");
static_assert(KV_LEN_UNKNOWN == NVME_KVV_LEN_UNKNOWN, "the unknown length is the same");

uint32_t nvmf_kv_vendor_effects(uint8_t opc)
{
    switch (opc) {
    case NVME_KVV_OPEN:
    case NVME_KVV_COMMIT:
    case NVME_KVV_WRITE:
    case NVME_KVV_BATCH:
        return NVME_EFFECT_CSUPP | NVME_EFFECT_LBCC;
    case NVME_KVV_CLOSE:
    case NVME_KVV_READ:
    case NVME_KVV_INFO:
        return NVME_EFFECT_CSUPP;
    default:
        return 0;
    }
}

static uint16_t status_of(int rc)
{
    if (rc == -ESTALE)
        return NVME_SC_KVV_STALE | NVME_SC_DNR;
    if (rc == -ENOMEM)
        return NVME_SC_KVV_NO_HANDLE;
    return nvme_status_of_errno(rc, NVME_FOR_KV);
}

static void set_dws(struct nvmf_cmd *cmd, uint64_t v)
{
    cmd->dw0 = (uint32_t)v;
    cmd->dw1 = (uint32_t)(v >> 32);
}

/* --- OPEN ------------------------------------------------------------------------------------- */

/* Fills cmd->kv for an operation on the key of an OPEN. */
static struct kv_req *open_req(struct nvmf_cmd *cmd, uint8_t op, const struct nvme_kvv_open *o)
{
    struct kv_req *r = nvmf_kv_req(cmd, op);

    r->key = o->key;
    r->flags = o->flags;
    r->version = o->version;
    if (cmd->handle != NULL) /* the snapshot */
        r->snap = cmd->handle->snap;
    return r;
}

static int open_read(struct rt_task *t, struct nvmf_cmd *cmd, const struct nvme_kvv_open *o,
                     struct nvmf_handle *h)
{
    struct kv_req *r = open_req(cmd, KV_RETRIEVE_OPEN, o);
    int rc = nvmf_kv(t, cmd);

    if (rc < 0)
        return rc;
    h->stream = r->stream;
    h->len = r->value_len;
    h->version = r->version;
    cmd->dw1 = (uint32_t)MIN(r->value_len, (uint64_t)UINT32_MAX);
    return 0;
}

static int open_store(struct rt_task *t, struct nvmf_cmd *cmd, const struct nvme_kvv_open *o,
                      struct nvmf_handle *h)
{
    struct kv_req *r;
    int rc = 0;

    /* What will be refused at the end is better refused now. */
    if (o->flags & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST | KV_F_IF_VERSION)) {
        r = open_req(cmd, KV_STAT, o);
        r->flags = 0;
        rc = nvmf_kv(t, cmd);
        if (rc == 0 && (o->flags & KV_F_MUST_NOT_EXIST))
            return -EEXIST;
        if (rc == 0 && (o->flags & KV_F_IF_VERSION) && r->version != o->version)
            return (kv_info(cmd->ns->kv)->caps & KV_CAP_VERSION) ? -ESTALE : -ENOTSUP;
        if (rc == -ENOENT && (o->flags & KV_F_MUST_NOT_EXIST))
            rc = 0;
    }
    if (rc < 0)
        return rc;
    r = open_req(cmd, KV_STORE_OPEN, o);
    r->len = o->declared_len;
    rc = nvmf_kv(t, cmd);
    if (rc < 0)
        return rc;
    h->stream = r->stream;
    h->len = o->declared_len;
    return 0;
}

static int open_list(struct nvmf_cmd *cmd, const struct nvme_kvv_open *o, struct nvmf_handle *h)
{
    h->keys = malloc(2 * KV_KEY_MAX);
    if (h->keys == NULL)
        return -ENOMEM;
    memcpy(h->keys, o->key.ptr, o->key.len);
    memcpy(h->keys + KV_KEY_MAX, o->prefix.ptr, o->prefix.len);
    h->last_len = (uint32_t)o->key.len;
    h->prefix_len = (uint32_t)o->prefix.len;
    h->after = o->flags & KV_F_AFTER;
    return 0;
}

static int open_snapshot(struct rt_task *t, struct nvmf_cmd *cmd, struct nvmf_handle *h)
{
    struct kv_req *r = nvmf_kv_req(cmd, KV_SNAP_OPEN);
    int rc = nvmf_kv(t, cmd);

    if (rc == 0)
        h->snap = r->snap;
    return rc;
}

/* The modes that leave a handle. */
static uint16_t open_handle(struct rt_task *t, struct nvmf_cmd *cmd, const struct nvme_kvv_open *o)
{
    struct nvmf_handle *h = nvmf_handle_new(cmd, (uint8_t)o->mode);
    int rc;

    if (h == NULL)
        return NVME_SC_KVV_NO_HANDLE;
    if (cmd->handle != NULL) {
        h->of = cmd->handle;
        h->of->busy++;
    }
    h->busy++; /* nobody ends it while we wait */
    switch (o->mode) {
    case NVME_KVV_MODE_READ:
        rc = open_read(t, cmd, o, h);
        break;
    case NVME_KVV_MODE_STORE:
        rc = open_store(t, cmd, o, h);
        break;
    case NVME_KVV_MODE_LIST:
        rc = open_list(cmd, o, h);
        break;
    default:
        rc = open_snapshot(t, cmd, h);
        break;
    }
    h->busy--;
    h->last_ns = rt_now();
    if (rc == 0 && !h->doomed) {
        cmd->dw0 = nvmf_handle_id(h);
        return NVME_SC_SUCCESS;
    }
    nvmf_handle_end(h);
    return rc < 0 ? status_of(rc) : NVME_SC_ABORT_REQ | NVME_SC_DNR;
}

static uint16_t open_now(struct rt_task *t, struct nvmf_cmd *cmd, const struct nvme_kvv_open *o)
{
    struct kv_req *r;
    int rc;

    if (o->mode == NVME_KVV_MODE_DELETE) {
        open_req(cmd, KV_DELETE, o);
        return status_of(nvmf_kv(t, cmd));
    }
    if (o->mode != NVME_KVV_MODE_STAT)
        return open_handle(t, cmd, o);
    r = open_req(cmd, KV_STAT, o);
    rc = nvmf_kv(t, cmd);
    if (rc == 0)
        set_dws(cmd, r->value_len);
    return status_of(rc);
}

static int open_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    const struct iovec data = cmd->iov[0]; /* cmd->iov is for the requests */
    struct nvme_kvv_open o;
    uint16_t status = nvme_kvv_open_decode(&cmd->sqe, data.iov_base, data.iov_len,
                                           kv_info(cmd->ns->kv)->key_max, &o);

    if (status != NVME_SC_SUCCESS)
        return status;
    if (o.snapshot != 0) {
        struct nvmf_handle *snap = nvmf_handle_find(cmd, o.snapshot);

        if (!(kv_info(cmd->ns->kv)->caps & KV_CAP_SNAPSHOT))
            return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
        if (snap == NULL || snap->mode != NVME_KVV_MODE_SNAPSHOT)
            return BAD_HANDLE;
        nvmf_handle_use(cmd, snap);
    }
    return open_now(t, cmd, &o);
}

static void open_whole(struct nvmf_cmd *cmd)
{
    nvmf_cmd_task(cmd, open_task);
}

static void do_open(struct nvmf_cmd *cmd, struct bytes data)
{
    uint32_t len = nvme_kvv_data_len(&cmd->sqe);

    if (cmd->sgl_len != len)
        nvmf_cmd_complete(cmd, BAD_LENGTH);
    else if (len > NVME_KVV_OPEN_BYTES(KV_KEY_MAX))
        nvmf_cmd_complete(cmd, NVME_SC_KV_INVALID_KEY_SIZE | NVME_SC_DNR);
    else
        nvmf_cmd_data(cmd, data, len, 1, open_whole, NULL, false);
}

/* --- READ ------------------------------------------------------------------------------------- */

/* DW0, DW1 of a READ, and the handle's end when the command says so. */
static void read_result(struct nvmf_cmd *cmd, uint64_t moved, bool more)
{
    cmd->dw0 = (uint32_t)moved;
    cmd->dw1 = more ? NVME_KVV_MORE : 0;
    if (le32_get(cmd->sqe.cdw14) & NVME_KVV_IO_CLOSE)
        cmd->handle->doomed = true; /* ends when the command has left it */
}

static uint64_t read_offset(const struct nvmf_cmd *cmd)
{
    return le32_get(cmd->sqe.cdw12) | (uint64_t)le32_get(cmd->sqe.cdw13) << 32;
}

/* Bytes that a READ of a value moves. */
static uint32_t read_len(const struct nvmf_cmd *cmd)
{
    const struct nvmf_handle *h = cmd->handle;
    uint64_t off = read_offset(cmd);

    if (off >= h->len)
        return 0;
    return (uint32_t)MIN(h->len - off, (uint64_t)le32_get(cmd->sqe.cdw10));
}

static void read_done(struct rt_req *req)
{
    struct nvmf_cmd *cmd = container_of(req, struct nvmf_cmd, kv.req);
    uint64_t moved = cmd->kv.moved;

    if (req->rc < 0) {
        nvmf_cmd_complete(cmd, status_of(req->rc));
        return;
    }
    read_result(cmd, moved, read_offset(cmd) + moved < cmd->handle->len);
    nvmf_cmd_complete_data(cmd, (uint32_t)moved);
}

static void read_with_buffer(struct nvmf_cmd *cmd)
{
    struct kv_req *r = nvmf_kv_req(cmd, KV_READ);

    r->stream = cmd->handle->stream;
    r->off = read_offset(cmd);
    r->len = cmd->out_len;
    rt_req_init(&r->req, read_done);
    r->req.trace_id = cmd->trace_id;
    cmd->state = NVMF_CMD_DEVICE;
    kv_submit(nvmf_cmd_use(cmd)->kv, r);
}

static int read_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    uint32_t n = read_len(cmd);
    uint64_t off = read_offset(cmd);
    int status = nvmf_send_stream(t, cmd, cmd->handle->stream, off, n);

    if (status == NVME_SC_SUCCESS)
        read_result(cmd, n, off + n < cmd->handle->len);
    return status;
}

/* One KV_LIST of the handle into the room behind the page. */
static int list_more(struct rt_task *t, struct nvmf_cmd *cmd, uint8_t *room, uint32_t len)
{
    struct nvmf_handle *h = cmd->handle;
    struct kv_req *r = nvmf_kv_req(cmd, KV_LIST);

    r->key = bytes_make(h->keys, h->last_len);
    r->prefix = bytes_make(h->keys + KV_KEY_MAX, h->prefix_len);
    r->flags = h->after ? KV_F_AFTER : 0;
    r->snap = h->of != NULL ? h->of->snap : NULL;
    cmd->iov[0] = (struct iovec){.iov_base = room, .iov_len = len};
    r->len = len;
    return nvmf_kv(t, cmd);
}

/* Adds what was listed; false when the page is full. The handle stands after what the page has. */
static bool list_add(struct nvmf_cmd *cmd, struct nvme_kv_list_page *page)
{
    struct nvmf_handle *h = cmd->handle;
    struct kv_list_iter it = kv_list_begin(cmd->iov[0].iov_base, cmd->kv.moved);
    struct bytes key;

    while (kv_list_next(&it, &key)) {
        if (!nvme_kv_list_put(page, key))
            return false;
        memcpy(h->keys, key.ptr, key.len);
        h->last_len = (uint32_t)key.len;
        h->after = true;
    }
    h->at_end = !cmd->kv.more;
    return true;
}

#define LIST_ROOM 4096u

static int list_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    uint32_t cap = MIN(le32_get(cmd->sqe.cdw10), RT_BUF_LARGE_BYTES - LIST_ROOM) & ~3u;
    struct nvmf_handle *h = cmd->handle;
    struct nvme_kv_list_page page;
    struct nvmf_piece *p;
    bool room = true;
    int rc = 0;

    if (cap < NVME_KV_LIST_HEAD_BYTES)
        return INVALID;
    p = nvmf_out_take(t, cmd->conn, cap + LIST_ROOM);
    if (p == NULL)
        return NVME_SC_ABORT_REQ | NVME_SC_DNR;
    nvme_kv_list_init(&page, p->buf->data, cap);
    while (rc == 0 && room && !h->at_end) {
        rc = list_more(t, cmd, p->buf->data + cap, LIST_ROOM);
        if (rc == 0)
            room = list_add(cmd, &page);
    }
    if (rc < 0 || (page.nkeys == 0 && !h->at_end)) {
        nvmf_out_drop(p);
        return rc < 0 ? status_of(rc) : INVALID; /* not one key fits */
    }
    read_result(cmd, page.used, !h->at_end);
    nvmf_out_send(cmd, p, 0, (uint32_t)page.used, true);
    return NVME_SC_SUCCESS;
}

static void do_read(struct nvmf_cmd *cmd, const struct nvme_kvv_io *io, struct nvmf_handle *h)
{
    uint16_t status = NVME_SC_SUCCESS;

    if (h->mode != NVME_KVV_MODE_READ && h->mode != NVME_KVV_MODE_LIST)
        status = INVALID;
    else if (h->mode == NVME_KVV_MODE_LIST && io->offset != 0)
        status = INVALID;
    else if (cmd->sgl_len < io->len || (cmd->in_capsule && io->len > 0))
        status = BAD_LENGTH;
    else if (h->mode == NVME_KVV_MODE_LIST && h->busy > 0)
        status = SEQUENCE;
    if (status != NVME_SC_SUCCESS) {
        nvmf_cmd_complete(cmd, status);
        return;
    }
    nvmf_handle_use(cmd, h);
    if (h->mode == NVME_KVV_MODE_LIST) {
        nvmf_cmd_task(cmd, list_task);
    } else if (read_len(cmd) == 0) {
        read_result(cmd, 0, io->offset < h->len);
        nvmf_cmd_complete(cmd, NVME_SC_SUCCESS);
    } else if (read_len(cmd) <= RT_BUF_LARGE_BYTES) {
        nvmf_out_begin(cmd, read_len(cmd), read_with_buffer);
    } else {
        nvmf_cmd_task(cmd, read_task);
    }
}

/* --- WRITE, COMMIT ---------------------------------------------------------------------------- */

static int commit(struct rt_task *t, struct nvmf_cmd *cmd)
{
    struct nvmf_handle *h = cmd->handle;
    struct kv_req *r = nvmf_kv_req(cmd, KV_COMMIT);
    int rc;

    r->stream = h->stream;
    h->stream = NULL; /* gone, whatever comes */
    h->doomed = true;
    rt_task_shield(t, true);
    rc = nvmf_kv(t, cmd);
    rt_task_shield(t, false);
    if (rc == 0)
        set_dws(cmd, r->version);
    return rc;
}

static int commit_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    return status_of(commit(t, cmd));
}

static int write_part(struct rt_task *t, struct nvmf_cmd *cmd, void *data, uint32_t len)
{
    struct kv_req *r = nvmf_kv_req(cmd, KV_WRITE);
    int rc = 0;

    r->stream = cmd->handle->stream;
    cmd->iov[0] = (struct iovec){.iov_base = data, .iov_len = len};
    r->len = len;
    if (len > 0)
        rc = nvmf_kv(t, cmd);
    if (rc == 0)
        cmd->handle->pos += len;
    return rc;
}

/* All bytes of the command are accepted. */
static int write_end(struct rt_task *t, struct nvmf_cmd *cmd, int rc)
{
    if (rc == 0 && (le32_get(cmd->sqe.cdw14) & NVME_KVV_IO_COMMIT))
        return status_of(commit(t, cmd));
    cmd->handle_ok = rc == 0;
    return status_of(rc);
}

static int write_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    struct nvmf_in *in = cmd->in;
    struct nvmf_part part;
    int rc;

    nvmf_in_start(in);
    while ((rc = nvmf_in_next(t, in, &part)) > 0) {
        rc = write_part(t, cmd, part.data, part.len);
        if (rc < 0)
            return status_of(rc);
    }
    return rc < 0 ? in->status : write_end(t, cmd, 0);
}

static int write_whole_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    return write_end(t, cmd, write_part(t, cmd, cmd->iov[0].iov_base, cmd->data_len));
}

static void write_whole(struct nvmf_cmd *cmd)
{
    nvmf_cmd_task(cmd, write_whole_task);
}

static void do_write(struct nvmf_cmd *cmd, struct bytes data, const struct nvme_kvv_io *io,
                     struct nvmf_handle *h)
{
    uint64_t max = h->len != NVME_KVV_LEN_UNKNOWN ? h->len : kv_info(cmd->ns->kv)->val_max;

    if (h->mode != NVME_KVV_MODE_STORE)
        nvmf_cmd_complete(cmd, INVALID);
    else if (cmd->sgl_len != io->len)
        nvmf_cmd_complete(cmd, BAD_LENGTH);
    else if (h->busy > 0 || io->offset != h->pos)
        nvmf_cmd_complete(cmd, SEQUENCE);
    else if (io->len > max - h->pos) {
        nvmf_handle_end(h);
        nvmf_cmd_complete(cmd, NVME_SC_KV_INVALID_VALUE_SIZE | NVME_SC_DNR);
    } else {
        nvmf_handle_use(cmd, h);
        nvmf_cmd_data(cmd, data, io->len, 1, write_whole, write_task, false);
    }
}

static void do_commit(struct nvmf_cmd *cmd, struct nvmf_handle *h)
{
    if (h->mode != NVME_KVV_MODE_STORE) {
        nvmf_cmd_complete(cmd, INVALID);
    } else if (h->busy > 0) {
        nvmf_cmd_complete(cmd, SEQUENCE);
    } else {
        nvmf_handle_use(cmd, h);
        nvmf_cmd_task(cmd, commit_task);
    }
}

void nvmf_kv_vendor_damaged(struct nvmf_cmd *cmd)
{
    struct nvmf_conn *c = cmd->conn;
    struct nvmf_handle *h;

    if (c->handles == NULL || cmd->sqe.opc != NVME_KVV_WRITE || nvmf_cmd_ns(cmd) != NVME_SC_SUCCESS)
        return;
    h = nvmf_handle_find(cmd, le32_get(cmd->sqe.cdw11));
    if (h != NULL && h->mode == NVME_KVV_MODE_STORE)
        nvmf_handle_end(h);
}

/* --- INFO, CLOSE ------------------------------------------------------------------------------ */

static int info_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    struct nvmf_handle *h = cmd->handle;
    bool read = h->mode == NVME_KVV_MODE_READ;
    struct nvme_kvv_info info = {
        .value_len = le64_make(read ? h->len : h->pos),
        .version = le64_make(read ? h->version : 0),
        .mode = le32_make(h->mode),
    };
    struct nvmf_piece *p = nvmf_out_take(t, cmd->conn, sizeof(info));

    if (p == NULL)
        return NVME_SC_ABORT_REQ | NVME_SC_DNR;
    memcpy(p->buf->data, &info, sizeof(info));
    nvmf_out_send(cmd, p, 0, sizeof(info), true);
    read_result(cmd, sizeof(info), false);
    return NVME_SC_SUCCESS;
}

static void do_info(struct nvmf_cmd *cmd, const struct nvme_kvv_io *io, struct nvmf_handle *h)
{
    if (io->len < sizeof(struct nvme_kvv_info) || io->offset != 0) {
        nvmf_cmd_complete(cmd, INVALID);
    } else if (cmd->sgl_len < io->len || cmd->in_capsule) {
        nvmf_cmd_complete(cmd, BAD_LENGTH);
    } else {
        nvmf_handle_use(cmd, h);
        nvmf_cmd_task(cmd, info_task);
    }
}

/* Waits for those at work on it, and until its stream has ended. */
static int close_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    struct nvmf_handle *h = nvmf_handle_find(cmd, le32_get(cmd->sqe.cdw11));
    uint32_t gen;

    if (h == NULL)
        return BAD_HANDLE;
    gen = h->gen;
    nvmf_handle_end(h);
    /* A snapshot stays for the handles that look at it: that is not waited for. */
    while (h->ns != NULL && h->gen == gen && h->mode != NVME_KVV_MODE_SNAPSHOT) {
        if (rt_cond_wait(t, &h->idle) < 0)
            break;
    }
    return NVME_SC_SUCCESS;
}

/* --- BATCH ------------------------------------------------------------------------------------ */

struct batch_memory {
    struct nvme_kvv_item item[NVMF_BATCH_RECORDS];
    struct kv_batch_item kv[NVMF_BATCH_RECORDS];
};
static_assert(sizeof(struct batch_memory) <= RT_BUF_LARGE_BYTES, "a batch's items fit a buffer");

static struct nvme_kvv_batch_limits batch_limits(const struct nvmf_cmd *cmd)
{
    const struct kv_info *info = kv_info(cmd->ns->kv);

    return (struct nvme_kvv_batch_limits){.key_max = info->key_max,
                                          .val_max = info->val_max,
                                          .bytes_max = NVMF_BATCH_BYTES,
                                          .items_max = NVMF_BATCH_RECORDS};
}

static int batch_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    /* Not waited for: the command holds a buffer already. */
    CLEANUP(rt_buf_put_p) struct rt_buf *buf = rt_buf_get(sizeof(struct batch_memory));
    struct nvme_kvv_batch_limits limits = batch_limits(cmd);
    struct batch_memory *m;
    struct kv_req *r;
    uint32_t n = 0;
    uint16_t status;

    if (buf == NULL)
        return NVME_SC_CMD_INTERRUPTED;
    m = (struct batch_memory *)buf->data;
    status = nvme_kvv_batch_decode(&cmd->sqe, cmd->iov[0].iov_base, cmd->data_len, &limits, m->item,
                                   NVMF_BATCH_RECORDS, &n);
    if (status != NVME_SC_SUCCESS) {
        cmd->dw0 = n;
        return status;
    }
    for (uint32_t i = 0; i < n; i++)
        m->kv[i] = (struct kv_batch_item){
            .key = m->item[i].key, .val = m->item[i].val, .is_delete = m->item[i].is_delete};
    r = nvmf_kv_req(cmd, KV_BATCH);
    r->batch = m->kv;
    r->nbatch = n;
    return status_of(nvmf_kv(t, cmd));
}

static void batch_whole(struct nvmf_cmd *cmd)
{
    nvmf_cmd_task(cmd, batch_task);
}

static void do_batch(struct nvmf_cmd *cmd, struct bytes data)
{
    struct nvme_kvv_batch_limits limits = batch_limits(cmd);
    uint16_t status;

    if (!(kv_info(cmd->ns->kv)->caps & KV_CAP_BATCH))
        status = NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
    else if (cmd->ns->read_only)
        status = NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR;
    else
        status = nvme_kvv_batch_check(&cmd->sqe, cmd->sgl_len, &limits);
    if (status != NVME_SC_SUCCESS)
        nvmf_cmd_complete(cmd, status);
    else
        nvmf_cmd_data(cmd, data, nvme_kvv_data_len(&cmd->sqe), 1, batch_whole, NULL, false);
}

/* --- all -------------------------------------------------------------------------------------- */

static void on_handle(struct nvmf_cmd *cmd, struct bytes data)
{
    struct nvmf_handle *h;
    struct nvme_kvv_io io;
    uint16_t status = nvme_kvv_io_decode(&cmd->sqe, &io);

    if (status != NVME_SC_SUCCESS) {
        nvmf_cmd_complete(cmd, status);
        return;
    }
    h = nvmf_handle_find(cmd, io.handle);
    if (h == NULL) {
        nvmf_cmd_complete(cmd, BAD_HANDLE);
        return;
    }
    switch (cmd->sqe.opc) {
    case NVME_KVV_READ:
        do_read(cmd, &io, h);
        break;
    case NVME_KVV_WRITE:
        do_write(cmd, data, &io, h);
        break;
    case NVME_KVV_COMMIT:
        do_commit(cmd, h);
        break;
    case NVME_KVV_INFO:
        do_info(cmd, &io, h);
        break;
    default:
        nvmf_cmd_task(cmd, close_task);
        break;
    }
}

void nvmf_io_kv_vendor(struct nvmf_cmd *cmd, struct bytes data)
{
    if ((cmd->sqe.flags & NVME_SQE_FUSE_MASK) != 0)
        nvmf_cmd_complete(cmd, INVALID);
    else if (nvmf_kv_vendor_effects(cmd->sqe.opc) == 0)
        nvmf_cmd_complete(cmd, NVME_SC_INVALID_OPCODE | NVME_SC_DNR);
    else if (cmd->sqe.opc == NVME_KVV_OPEN)
        do_open(cmd, data);
    else if (cmd->sqe.opc == NVME_KVV_BATCH)
        do_batch(cmd, data);
    else
        on_handle(cmd, data);
}
