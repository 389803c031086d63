/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles of the vendor KV commands. They belong to a queue and hold a stream or snapshot of the
 * device, and the namespace. However one ends (CLOSE, a failure, idleness, the end of the queue or
 * of the namespace), it is doomed first: no command finds it any more; and when the last command
 * has left it, its stream is ended by a request of its own.
 */
#include "front/nvmf/internal.h"
#include "proto/nvme_kv_vendor.h"

#include <string.h>

uint32_t nvmf_handle_id(const struct nvmf_handle *h)
{
    return (h->gen & 0xffffffu) << 8 | ((uint32_t)(h - h->conn->handles) + 1);
}

struct nvmf_handle *nvmf_handle_new(struct nvmf_cmd *cmd, uint8_t mode)
{
    struct nvmf_conn *c = cmd->conn;

    if (c->handles == NULL)
        c->handles = calloc(NVMF_HANDLES, sizeof(*c->handles));
    for (unsigned i = 0; c->handles != NULL && i < NVMF_HANDLES; i++) {
        struct nvmf_handle *h = &c->handles[i];

        if (h->ns != NULL)
            continue;
        *h = (struct nvmf_handle){
            .conn = c, .ns = cmd->ns, .gen = h->gen + 1, .mode = mode, .last_ns = rt_now()};
        list_init(&h->idle.waiters);
        nvmf_cmd_use(cmd)->inflight++;
        c->nhandles++;
        return h;
    }
    return NULL;
}

struct nvmf_handle *nvmf_handle_find(struct nvmf_cmd *cmd, uint32_t id)
{
    struct nvmf_conn *c = cmd->conn;
    uint32_t i = (id & 0xff) - 1;

    if (c->handles == NULL || i >= NVMF_HANDLES)
        return NULL;
    if (c->handles[i].ns != cmd->ns || c->handles[i].doomed || nvmf_handle_id(&c->handles[i]) != id)
        return NULL;
    return &c->handles[i];
}

/* Nothing is left of it: its place is free. */
static void handle_free(struct nvmf_handle *h)
{
    struct nvmf_conn *c = h->conn;
    struct nvmf_ns_use *use = &h->ns->use[rt_index(c->local->reactor)];
    struct nvmf_handle *of = h->of;

    free(h->keys);
    h->keys = NULL;
    h->ns = NULL;
    h->of = NULL;
    rt_cond_wake_all(&h->idle);
    must(use->inflight > 0);
    if (--use->inflight == 0 && use->gone)
        rt_cond_wake_all(&use->idle);
    if (--c->nhandles == 0)
        rt_cond_wake_all(&c->handles_gone);
    if (of != NULL) {
        of->busy--;
        nvmf_handle_end(of->doomed ? of : NULL);
    }
}

static void end_done(struct rt_req *req)
{
    handle_free(container_of(req, struct nvmf_handle, end.req));
}

/* Ends stream or snapshot; then the handle is free. */
static void end_now(struct nvmf_handle *h)
{
    struct kv_req *r = &h->end;

    if (h->ending)
        return;
    h->ending = true;
    if (h->stream == NULL && h->snap == NULL) {
        handle_free(h);
        return;
    }
    memset(r, 0, sizeof(*r));
    rt_req_init(&r->req, end_done);
    r->stream = h->stream;
    r->snap = h->snap;
    if (h->snap != NULL)
        r->op = KV_SNAP_CLOSE;
    else
        r->op = h->mode == NVME_KVV_MODE_STORE ? KV_ABORT : KV_READ_CLOSE;
    kv_submit(h->ns->use[rt_index(h->conn->local->reactor)].kv, r);
}

void nvmf_handle_end(struct nvmf_handle *h)
{
    if (h == NULL)
        return;
    h->doomed = true;
    if (h->busy == 0)
        end_now(h);
}

void nvmf_handle_use(struct nvmf_cmd *cmd, struct nvmf_handle *h)
{
    cmd->handle = h;
    cmd->handle_ok = false;
    h->busy++;
    h->last_ns = rt_now();
}

void nvmf_handle_leave(struct nvmf_cmd *cmd)
{
    struct nvmf_handle *h = cmd->handle;

    cmd->handle = NULL;
    h->last_ns = rt_now();
    if (cmd->sqe.opc == NVME_KVV_WRITE && !cmd->handle_ok)
        h->doomed = true;
    must(h->busy > 0);
    if (--h->busy == 0) {
        rt_cond_wake_all(&h->idle);
        if (h->doomed)
            end_now(h);
    }
}

void nvmf_handles_end(struct nvmf_conn *c, const struct nvmf_ns *ns)
{
    for (unsigned i = 0; c->handles != NULL && i < NVMF_HANDLES; i++) {
        struct nvmf_handle *h = &c->handles[i];

        if (h->ns != NULL && (ns == NULL || h->ns == ns))
            nvmf_handle_end(h);
    }
}

void nvmf_handles_expire(struct nvmf_conn *c, uint64_t now)
{
    if (c->nhandles == 0)
        return;
    for (unsigned i = 0; i < NVMF_HANDLES; i++) {
        struct nvmf_handle *h = &c->handles[i];

        if (h->ns != NULL && h->busy == 0 && now - h->last_ns > NVMF_HANDLE_IDLE_MS * NS_PER_MS)
            nvmf_handle_end(h);
    }
}
