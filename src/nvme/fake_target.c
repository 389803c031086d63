/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_target.h. One task per connection, one command at a time. */
#include "nvme/fake_target.h"

#include "base/bytes.h"
#include "base/crc.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* --- sending ---------------------------------------------------------------------------------- */

int fake_send(struct rt_task *t, struct fake_conn *c, const void *data, size_t len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};

    while (iov.iov_len > 0) {
        ssize_t n = rt_sock_send(&c->sock, &iov, 1);

        if (n == -EAGAIN) {
            int rc = rt_sock_writable(t, &c->sock);

            if (rc < 0)
                return rc;
            continue;
        }
        if (n < 0)
            return (int)n;
        iov.iov_base = (uint8_t *)iov.iov_base + n;
        iov.iov_len -= (size_t)n;
    }
    return 0;
}

int fake_respond(struct rt_task *t, struct fake_conn *c, uint16_t cid, uint16_t status,
                 uint32_t dw0, uint32_t dw1)
{
    struct nvme_cqe cqe = {.dw0 = le32_make(dw0), .dw1 = le32_make(dw1), .cid = le16_make(cid)};
    uint8_t pdu[NVME_TCP_PUT_MAX];

    cqe.status = nvme_status_field(status);
    return fake_send(t, c, pdu, nvme_tcp_put_resp(pdu, &c->out, &cqe));
}

int fake_data(struct rt_task *t, struct fake_conn *c, uint16_t cid, uint32_t datao,
              const void *data, uint32_t len, uint8_t flags, bool bad_digest)
{
    uint8_t pdu[NVME_TCP_PUT_MAX], digest[4];
    int rc = fake_send(t, c, pdu, nvme_tcp_put_c2h_data(pdu, &c->out, cid, datao, len, flags));

    if (rc == 0)
        rc = fake_send(t, c, data, len);
    if (rc == 0 && c->out.ddgst) {
        le32_put(digest, crc32c(0, data, len) ^ (bad_digest ? 1 : 0));
        rc = fake_send(t, c, digest, sizeof(digest));
    }
    return rc;
}

int fake_r2t(struct rt_task *t, struct fake_conn *c, uint16_t cid, uint32_t off, uint32_t len)
{
    uint8_t pdu[NVME_TCP_PUT_MAX];

    return fake_send(t, c, pdu,
                     nvme_tcp_put_r2t(pdu, &c->out, cid, (uint16_t)(off >> 2), off, len));
}

/* --- moving a command's data ------------------------------------------------------------------ */

static int to_host(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe,
                   const uint8_t *data, uint32_t len, uint32_t dw0, bool success)
{
    uint32_t step = c->fake->c2h_bytes != 0 ? c->fake->c2h_bytes : MAX(len, 1u);
    uint16_t cid = le16_get(sqe->cid);

    len = MIN(len, le32_get(sqe->sgl.len));
    for (uint32_t off = 0; off < len; off += step) {
        uint32_t n = MIN(step, len - off);
        uint8_t flags = off + n == len ? NVME_TCP_F_LAST | (success ? NVME_TCP_F_SUCCESS : 0) : 0;
        int rc = fake_data(t, c, cid, off, data + off, n, flags, false);

        if (rc < 0)
            return rc;
    }
    return success && len > 0 ? 0 : fake_respond(t, c, cid, 0, dw0, 0);
}

static int take(struct rt_task *t, struct fake_conn *c, const struct nvme_tcp_layout *l,
                uint8_t *out)
{
    struct iovec iov = {.iov_base = out, .iov_len = l->data_len};
    const uint8_t *digest;
    int rc = net_rx_read(t, &c->rx, &iov, 1, 0, l->data_len);

    if (rc < 0 || !l->ddgst)
        return rc;
    rc = net_rx_need(t, &c->rx, 4, &digest);
    if (rc == 0 && !nvme_tcp_digest_ok(digest, crc32c(0, out, l->data_len)))
        rc = -EBADMSG;
    net_rx_consume(&c->rx, 4);
    return rc;
}

static int next_pdu(struct rt_task *t, struct fake_conn *c, struct nvme_tcp_layout *l,
                    union nvme_tcp_pdu *out)
{
    struct nvme_tcp_fault f;
    const uint8_t *p;
    int rc = net_rx_need(t, &c->rx, sizeof(struct nvme_tcp_ch), &p);

    if (rc < 0)
        return rc;
    if (nvme_tcp_ch_decode(&c->in, (const struct nvme_tcp_ch *)p, l, &f) < 0)
        return -EPROTO;
    rc = net_rx_need(t, &c->rx, l->data_off, &p);
    if (rc < 0)
        return rc;
    memcpy(out, p, l->data_off);
    net_rx_consume(&c->rx, l->data_off);
    return nvme_tcp_hdr_check(l, out, &f);
}

/* Data of a write: from the capsule, or asked for by R2Ts. */
static int from_host(struct rt_task *t, struct fake_conn *c, const struct nvme_tcp_layout *l,
                     const struct nvme_sqe *sqe, uint8_t *out)
{
    uint32_t len = le32_get(sqe->sgl.len);
    uint32_t step = c->fake->r2t_bytes != 0 ? c->fake->r2t_bytes : MAX(len, 1u);
    union nvme_tcp_pdu pdu;
    struct nvme_tcp_layout dl;

    if (sqe->sgl.type == NVME_SGL_DATA_BLOCK_OFFSET)
        return take(t, c, l, out);
    for (uint32_t off = 0; off < len; off += step) {
        struct nvme_tcp_window w = {.cccid = le16_get(sqe->cid),
                                    .ttag = (uint16_t)(off >> 2),
                                    .next = off,
                                    .end = off + MIN(step, len - off)};
        int rc = fake_r2t(t, c, w.cccid, off, w.end - off);

        while (rc == 0) {
            struct nvme_tcp_fault f;
            uint32_t at = w.next;

            rc = next_pdu(t, c, &dl, &pdu);
            if (rc == 0 && dl.type == NVME_TCP_H2C_TERM) {
                c->fake->terms++;
                c->fake->term_fes = le16_get(pdu.term.fes);
                return -EPROTO;
            }
            if (rc == 0)
                rc = dl.type == NVME_TCP_H2C_DATA ? nvme_tcp_h2c_check(&w, &pdu.data, &f) : -EPROTO;
            if (rc >= 0) {
                int last = rc;

                rc = take(t, c, &dl, out + at);
                if (rc == 0)
                    rc = last;
            }
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --- commands --------------------------------------------------------------------------------- */

static int fabrics(struct rt_task *t, struct fake_conn *c, const struct nvme_tcp_layout *l,
                   const struct nvme_sqe *sqe)
{
    const struct nvme_property_cmd *prop = (const struct nvme_property_cmd *)sqe;
    const struct nvme_connect_cmd *con = (const struct nvme_connect_cmd *)sqe;
    uint64_t cap = 127 | NVME_CAP_CQR | 2ull << NVME_CAP_TO_SHIFT |
                   (uint64_t)(NVME_CAP_CSS_NVM | NVME_CAP_CSS_IOCS) << NVME_CAP_CSS_SHIFT;
    uint16_t cid = le16_get(sqe->cid);
    uint8_t data[1024];
    int rc;

    switch (prop->fctype) {
    case NVME_FC_CONNECT:
        rc = take(t, c, l, data);
        if (rc < 0)
            return rc;
        c->qid = le16_get(con->qid);
        return fake_respond(t, c, cid, 0, 7, 0);
    case NVME_FC_PROPERTY_GET:
        if (le32_get(prop->ofst) == NVME_REG_CAP)
            return fake_respond(t, c, cid, 0, (uint32_t)cap, (uint32_t)(cap >> 32));
        if (le32_get(prop->ofst) == NVME_REG_VS)
            return fake_respond(t, c, cid, 0, NVME_VS_2_0, 0);
        return fake_respond(t, c, cid, 0, NVME_CSTS_RDY | NVME_CSTS_SHST_COMPLETE, 0);
    default:
        return fake_respond(t, c, cid, 0, 0, 0);
    }
}

static void identify_page(struct fake *f, const struct nvme_sqe *sqe, uint8_t page[4096])
{
    struct nvme_id_ctrl *id = (struct nvme_id_ctrl *)page;
    struct nvme_id_ns *ns = (struct nvme_id_ns *)page;
    struct nvme_id_ns_kv *kv = (struct nvme_id_ns_kv *)page;
    uint32_t nsid = le32_get(sqe->nsid);
    struct nvme_ns_ids ids = {.have = 1u << NVME_NIDT_CSI | 1u << NVME_NIDT_UUID};

    memset(page, 0, 4096);
    switch (nvme_identify_cns(sqe)) {
    case NVME_CNS_CTRL:
        id->cntlid = le16_make(7);
        id->cntrltype = NVME_CNTRLTYPE_IO;
        id->oaes = le32_make(NVME_OAES_NS_ATTR);
        id->aerl = 3;
        id->ioccsz = le32_make(4 + 8192 / 16);
        id->oncs = le16_make(NVME_ONCS_COMPARE | NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES);
        id->vwc = NVME_VWC_PRESENT;
        break;
    case NVME_CNS_NS_ACTIVE_LIST:
        for (uint32_t i = nsid + 1, n = 0; i <= 2; i++)
            le32_put(page + 4 * n++, i);
        break;
    case NVME_CNS_NS_DESC_LIST:
        ids.csi = nsid == 2 && !f->kv_only_bad_type ? NVME_CSI_KV : NVME_CSI_NVM;
        memset(ids.uuid, (int)nsid, sizeof(ids.uuid));
        nvme_ns_desc_encode(page, 4096, &ids);
        break;
    case NVME_CNS_NS:
        ns->nsze = ns->ncap = le64_make(f->nblocks);
        ns->lbaf[0].lbads = 9;
        break;
    case NVME_CNS_CSI_NS:
        kv->nsze = le64_make(1 << 20);
        kv->kvf[0].kvkml = le16_make(16);
        kv->kvf[0].kvvml = le32_make(FAKE_VALUE_MAX);
        break;
    }
}

static int admin(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe)
{
    uint16_t cid = le16_get(sqe->cid);
    uint8_t *page;
    int rc;

    switch (sqe->opc) {
    case NVME_OPC_IDENTIFY:
        page = malloc(4096);
        identify_page(c->fake, sqe, page);
        rc = to_host(t, c, sqe, page, 4096, 0, false);
        free(page);
        return rc;
    case NVME_OPC_GET_LOG_PAGE:
        page = calloc(1, 4096);
        rc = to_host(t, c, sqe, page, 4096, 0, false);
        free(page);
        return rc;
    case NVME_OPC_SET_FEATURES:
        rc = c->fake->queues - 1;
        return fake_respond(t, c, cid, 0, (uint32_t)(rc | rc << 16), 0);
    case NVME_OPC_ASYNC_EVENT_REQUEST:
        if (c->has_aer)
            return 0; /* kept for ever */
        c->has_aer = true;
        c->aer_cid = cid;
        return 0;
    case NVME_OPC_KEEP_ALIVE:
        return fake_respond(t, c, cid, 0, 0, 0);
    default:
        return fake_respond(t, c, cid, NVME_SC_INVALID_OPCODE | NVME_SC_DNR, 0, 0);
    }
}

static int nvm(struct rt_task *t, struct fake_conn *c, const struct nvme_tcp_layout *l,
               const struct nvme_sqe *sqe)
{
    uint16_t cid = le16_get(sqe->cid);
    uint64_t off = nvme_slba(sqe) * FAKE_BLOCK_BYTES;
    uint32_t len = nvme_nlb(sqe) * FAKE_BLOCK_BYTES;
    int rc;

    if (sqe->opc != NVME_OPC_READ && sqe->opc != NVME_OPC_WRITE)
        return fake_respond(t, c, cid, 0, 0, 0);
    if (off + len > c->fake->nblocks * FAKE_BLOCK_BYTES)
        return fake_respond(t, c, cid, NVME_SC_LBA_RANGE | NVME_SC_DNR, 0, 0);
    if (sqe->opc == NVME_OPC_READ)
        return to_host(t, c, sqe, c->fake->blocks + off, len, 0, c->fake->success);
    rc = from_host(t, c, l, sqe, c->fake->blocks + off);
    return rc < 0 ? rc : fake_respond(t, c, cid, 0, 0, 0);
}

static struct fake_value *find(struct fake *f, const uint8_t *key, unsigned len, bool make)
{
    struct fake_value *v, *room = NULL;

    for (v = f->value; v < f->value + FAKE_VALUES; v++) {
        if (v->used && v->key_len == len && memcmp(v->key, key, len) == 0)
            return v;
        if (!v->used)
            room = v;
    }
    if (!make || room == NULL)
        return NULL;
    memcpy(room->key, key, len);
    room->key_len = len;
    room->used = true;
    return room;
}

static int store(struct rt_task *t, struct fake_conn *c, const struct nvme_tcp_layout *l,
                 const struct nvme_sqe *sqe, const uint8_t *key, unsigned klen)
{
    uint32_t len = le32_get(sqe->cdw10);
    uint8_t *data = malloc(len + 1);
    struct fake_value *v;
    int rc = from_host(t, c, l, sqe, data);

    if (rc < 0) {
        free(data);
        return rc;
    }
    v = find(c->fake, key, klen, true);
    free(v->data);
    v->data = data;
    v->len = len;
    return fake_respond(t, c, le16_get(sqe->cid), 0, 0, 0);
}

static int by_key(const void *a, const void *b)
{
    const struct fake_value *x = *(struct fake_value *const *)a,
                            *y = *(struct fake_value *const *)b;

    return bytes_cmp(bytes_make(x->key, x->key_len), bytes_make(y->key, y->key_len));
}

static int list(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe,
                struct bytes start)
{
    struct fake_value *order[FAKE_VALUES];
    struct nvme_kv_list_page page;
    uint8_t *buf = calloc(1, 4096);
    unsigned n = 0;
    int rc;

    for (unsigned i = 0; i < FAKE_VALUES; i++) {
        if (c->fake->value[i].used)
            order[n++] = &c->fake->value[i];
    }
    qsort(order, n, sizeof(order[0]), by_key);
    nvme_kv_list_init(&page, buf, MIN(le32_get(sqe->cdw10), 4096u));
    for (unsigned i = 0; i < n; i++) {
        struct bytes key = bytes_make(order[i]->key, order[i]->key_len);

        if (bytes_cmp(key, start) >= 0 && !nvme_kv_list_put(&page, key))
            break;
    }
    rc = to_host(t, c, sqe, buf, (uint32_t)page.used, 0, false);
    free(buf);
    return rc;
}

static int kv(struct rt_task *t, struct fake_conn *c, const struct nvme_tcp_layout *l,
              const struct nvme_sqe *sqe)
{
    uint16_t cid = le16_get(sqe->cid);
    uint8_t key[16];
    int klen = nvme_kv_key_get(sqe, sqe->opc == NVME_KV_LIST, key);
    struct fake_value *v = klen > 0 ? find(c->fake, key, (unsigned)klen, false) : NULL;
    uint16_t absent = NVME_SC_KV_KEY_NOT_EXIST | NVME_SC_DNR;

    switch (sqe->opc) {
    case NVME_KV_STORE:
        if ((nvme_kv_options(sqe) & NVME_KV_STORE_MUST_NOT_EXIST) != 0 && v != NULL)
            return fake_respond(t, c, cid, NVME_SC_KV_KEY_EXISTS | NVME_SC_DNR, 0, 0);
        return store(t, c, l, sqe, key, (unsigned)klen);
    case NVME_KV_RETRIEVE:
        if (v == NULL)
            return fake_respond(t, c, cid, absent, 0, 0);
        c->fake->retrieves++;
        return to_host(t, c, sqe, v->data, MIN(v->len, le32_get(sqe->cdw10)), v->len, false);
    case NVME_KV_LIST:
        return list(t, c, sqe, bytes_make(key, (size_t)klen));
    case NVME_KV_EXIST:
        return fake_respond(t, c, cid, v != NULL ? 0 : absent, 0, 0);
    case NVME_KV_DELETE:
        if (v != NULL)
            v->used = false;
        return fake_respond(t, c, cid, 0, 0, 0);
    default:
        return fake_respond(t, c, cid, NVME_SC_INVALID_OPCODE | NVME_SC_DNR, 0, 0);
    }
}

/* --- connections ------------------------------------------------------------------------------ */

static int ask_script(struct rt_task *t, struct fake_conn *c, const struct nvme_sqe *sqe)
{
    struct fake *f = c->fake;
    int rc;

    if (f->script == NULL || f->script_left == 0)
        return 0;
    rc = f->script(t, c, sqe);
    if (rc != 0)
        f->script_left--;
    return rc;
}

static int greet(struct rt_task *t, struct fake_conn *c, const struct nvme_tcp_icreq *req)
{
    uint8_t pdu[NVME_TCP_PUT_MAX];
    int rc = ask_script(t, c, NULL);

    if (rc == 0)
        rc = fake_send(t, c, pdu, nvme_tcp_put_icresp(pdu, 0, req->dgst, c->fake->maxh2cdata));
    c->in.ready = true;
    c->in.hdgst = c->out.hdgst = req->dgst & NVME_TCP_DGST_HEADER;
    c->in.ddgst = c->out.ddgst = req->dgst & NVME_TCP_DGST_DATA;
    return MIN(rc, 0);
}

static int serve_pdu(struct rt_task *t, struct fake_conn *c)
{
    struct nvme_tcp_layout l;
    union nvme_tcp_pdu pdu;
    const struct nvme_sqe *sqe = &pdu.cmd.sqe;
    int rc = next_pdu(t, c, &l, &pdu);

    if (rc < 0)
        return rc;
    if (l.type == NVME_TCP_ICREQ)
        return greet(t, c, &pdu.icreq);
    if (l.type == NVME_TCP_H2C_TERM) {
        c->fake->terms++;
        c->fake->term_fes = le16_get(pdu.term.fes);
        return -EPROTO;
    }
    if (l.type != NVME_TCP_CMD)
        return -EPROTO;
    c->fake->commands++;
    rc = ask_script(t, c, sqe);
    if (rc != 0)
        return MIN(rc, 0);
    if (sqe->opc == NVME_OPC_FABRICS)
        return fabrics(t, c, &l, sqe);
    if (c->qid == 0)
        return admin(t, c, sqe);
    if (le32_get(sqe->nsid) == 1)
        return nvm(t, c, &l, sqe);
    return kv(t, c, &l, sqe);
}

static int conn_task(struct rt_task *t, void *arg)
{
    struct fake_conn *c = arg;
    int rc = 0;

    while (rc == 0)
        rc = serve_pdu(t, c);
    rt_sock_close(&c->sock);
    return 0;
}

static void conn_done(struct rt_req *req)
{
    struct fake_conn *c = container_of(req, struct fake_conn, done);

    list_del(&c->link);
    free(c);
}

static int accept_task(struct rt_task *t, void *arg)
{
    struct fake *f = arg;
    int rc = 0;

    while (rc == 0) {
        int fd = rt_sock_accept(&f->listener);
        struct fake_conn *c;

        if (fd == -EAGAIN) {
            rc = rt_sock_readable(t, &f->listener);
            continue;
        }
        if (fd < 0)
            return fd;
        f->connections++;
        if (f->refuse) {
            rt_sock_discard(fd);
            continue;
        }
        c = calloc(1, sizeof(*c));
        c->fake = f;
        rt_sock_attach(&c->sock, fd);
        net_rx_init(&c->rx, &c->sock, c->rx_buf, sizeof(c->rx_buf));
        c->in = (struct nvme_tcp_rx){.controller = true, .capsule_data_max = 8192};
        list_add_tail(&f->conns, &c->link);
        rt_req_init(&c->done, conn_done);
        rt_task_start("fake connection", conn_task, c, &c->done, &c->task);
    }
    return 0;
}

void fake_start(struct rt_task *t, struct fake *f)
{
    struct net_addr a;

    (void)t;
    list_init(&f->conns);
    f->nblocks = FAKE_NBLOCKS;
    f->blocks = calloc(2 * FAKE_NBLOCKS, FAKE_BLOCK_BYTES);
    if (f->maxh2cdata == 0)
        f->maxh2cdata = 131072;
    if (f->queues == 0)
        f->queues = 4;
    net_addr_parse(f->addr[0] != '\0' ? f->addr : "127.0.0.1:0", 0, &a, NULL);
    must(rt_sock_listen(&f->listener, (struct sockaddr *)&a.ss, a.len, 64) == 0);
    a.len = sizeof(struct sockaddr_in);
    must(rt_sock_local(&f->listener, &a.ss) == 0);
    net_addr_text(&a, f->addr);
    rt_req_init_task(&f->done, t);
    rt_task_start("fake target", accept_task, f, &f->done, &f->task);
}

void fake_cut(struct fake *f)
{
    struct fake_conn *c;

    list_for_each (c, &f->conns, struct fake_conn, link)
        rt_task_cancel(c->task);
}

void fake_stop(struct rt_task *t, struct fake *f)
{
    rt_task_cancel(f->task);
    rt_wait(t, &f->done);
    rt_sock_close(&f->listener);
    fake_cut(f);
    while (!list_empty(&f->conns))
        rt_sleep(t, NS_PER_MS);
    free(f->blocks);
    for (unsigned i = 0; i < FAKE_VALUES; i++)
        free(f->value[i].data);
    memset(f->value, 0, sizeof(f->value));
}

/* The request for events that a connection has waiting, if one does. */
static struct fake_conn *with_aer(struct fake *f)
{
    struct fake_conn *c;

    list_for_each (c, &f->conns, struct fake_conn, link) {
        if (c->has_aer)
            return c;
    }
    return NULL;
}

void fake_notify(struct rt_task *t, struct fake *f)
{
    struct fake_conn *c;

    while ((c = with_aer(f)) == NULL)
        rt_sleep(t, NS_PER_MS);
    c->has_aer = false;
    fake_respond(t, c, c->aer_cid, 0,
                 NVME_AER_DW0(NVME_AER_NOTICE, NVME_AER_NOTICE_NS_CHANGED, NVME_LID_CHANGED_NS), 0);
}
