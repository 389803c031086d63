/* SPDX-License-Identifier: Apache-2.0 */
#include "front/nvmf/test_client.h"

#include "base/crc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_BYTES 65536

int cl_socket(struct rt_task *t, struct cl *cl, const struct net_addr *addr)
{
    int rc;

    cl->sock.fd = -1;
    cl->buf = malloc(BUF_BYTES);
    rc = rt_sock_connect(t, &cl->sock, (const struct sockaddr *)&addr->ss, addr->len);
    if (rc < 0)
        return rc;
    net_rx_init(&cl->rx, &cl->sock, cl->buf, BUF_BYTES);
    if (cl->hostnqn == NULL)
        cl->hostnqn = CL_HOST;
    if (cl->capsule_max == 0)
        cl->capsule_max = 8192;
    return 0;
}

void cl_close(struct cl *cl)
{
    if (cl->buf == NULL)
        return;
    rt_sock_close(&cl->sock);
    free(cl->buf);
    cl->buf = NULL;
}

int cl_send(struct rt_task *t, struct cl *cl, const void *data, size_t len)
{
    const uint8_t *at = data;

    while (len > 0) {
        size_t step = cl->send_step != 0 ? MIN(cl->send_step, len) : len;
        struct iovec iov = {.iov_base = (void *)(uintptr_t)at, .iov_len = step};
        ssize_t n = rt_sock_send(&cl->sock, &iov, 1);
        int rc = 0;

        if (n == -EAGAIN)
            rc = rt_sock_writable(t, &cl->sock);
        else if (n < 0)
            return (int)n;
        else if (cl->send_step != 0)
            rc = rt_yield(t);
        if (rc < 0)
            return rc;
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

/* Header as written by a put function, data, digest. */
static int send_pdu(struct rt_task *t, struct cl *cl, const void *hdr, size_t hdr_len,
                    const void *data, uint32_t len)
{
    uint8_t digest[4];
    int rc = cl_send(t, cl, hdr, hdr_len);

    if (rc < 0 || len == 0)
        return rc;
    rc = cl_send(t, cl, data, len);
    if (rc < 0 || !cl->ptx.ddgst)
        return rc;
    le32_put(digest, crc32c(0, data, len) ^ (cl->bad_ddgst ? 1 : 0));
    return cl_send(t, cl, digest, sizeof(digest));
}

int cl_send_cmd(struct rt_task *t, struct cl *cl, struct nvme_sqe *sqe, const void *data,
                uint32_t len)
{
    uint8_t hdr[NVME_TCP_PUT_MAX];

    sqe->cid = le16_make(cl->next_cid++);
    return send_pdu(t, cl, hdr, nvme_tcp_put_cmd(hdr, &cl->ptx, sqe, len), data, len);
}

int cl_open(struct rt_task *t, struct cl *cl, const struct net_addr *addr, uint8_t dgst,
            uint8_t hpda)
{
    uint8_t req[NVME_TCP_IC_BYTES];
    const uint8_t *at;
    const struct nvme_tcp_icresp *resp;
    int rc = cl_socket(t, cl, addr);

    if (rc < 0)
        return rc;
    nvme_tcp_put_icreq(req, hpda, dgst, 0);
    rc = cl_send(t, cl, req, sizeof(req));
    if (rc < 0)
        return rc;
    rc = net_rx_need(t, &cl->rx, NVME_TCP_IC_BYTES, &at);
    if (rc < 0)
        return rc;
    resp = (const struct nvme_tcp_icresp *)at;
    if (resp->ch.type != NVME_TCP_ICRESP || resp->cpda != 0 || resp->dgst != dgst)
        return -EPROTO;
    cl->maxh2cdata = le32_get(resp->maxh2cdata);
    net_rx_consume(&cl->rx, NVME_TCP_IC_BYTES);
    cl->prx = (struct nvme_tcp_rx){.ready = true,
                                   .hdgst = dgst & NVME_TCP_DGST_HEADER,
                                   .ddgst = dgst & NVME_TCP_DGST_DATA,
                                   .pda = hpda};
    cl->ptx = (struct nvme_tcp_tx){.hdgst = cl->prx.hdgst, .ddgst = cl->prx.ddgst};
    return 0;
}

int cl_recv_pdu(struct rt_task *t, struct cl *cl, union nvme_tcp_pdu *pdu,
                struct nvme_tcp_layout *lay, void *data, uint32_t max)
{
    struct nvme_tcp_fault fault;
    struct iovec iov = {.iov_base = data, .iov_len = max};
    const uint8_t *at;
    int rc = net_rx_need(t, &cl->rx, sizeof(struct nvme_tcp_ch), &at);

    if (rc < 0)
        return rc;
    rc = nvme_tcp_ch_decode(&cl->prx, (const struct nvme_tcp_ch *)at, lay, &fault);
    if (rc < 0)
        return rc;
    rc = net_rx_need(t, &cl->rx, lay->data_off, &at);
    if (rc < 0)
        return rc;
    memcpy(pdu, at, lay->hdr_end);
    rc = nvme_tcp_hdr_check(lay, pdu, &fault);
    if (rc < 0)
        return rc;
    net_rx_consume(&cl->rx, lay->data_off);
    if (lay->data_len == 0)
        return 0;
    if (lay->data_len > max)
        return -E2BIG;
    rc = net_rx_read(t, &cl->rx, &iov, 1, 0, lay->data_len);
    if (rc < 0 || !lay->ddgst)
        return rc;
    rc = net_rx_need(t, &cl->rx, 4, &at);
    if (rc < 0)
        return rc;
    if (!nvme_tcp_digest_ok(at, crc32c(0, data, lay->data_len)))
        return -EBADMSG;
    net_rx_consume(&cl->rx, 4);
    return 0;
}

int cl_answer_r2t(struct rt_task *t, struct cl *cl, const struct nvme_tcp_r2t *r2t,
                  const uint8_t *data)
{
    uint32_t off = le32_get(r2t->r2to), end = off + le32_get(r2t->r2tl);
    uint32_t step = cl->h2c_len != 0 ? cl->h2c_len : cl->maxh2cdata;

    while (off < end) {
        uint32_t n = MIN(step, end - off);
        uint8_t hdr[NVME_TCP_PUT_MAX];
        size_t hdr_len = nvme_tcp_put_h2c_data(hdr, &cl->ptx, le16_get(r2t->cccid),
                                               le16_get(r2t->ttag), off, n, off + n == end);
        int rc = send_pdu(t, cl, hdr, hdr_len, data + off, n);

        if (rc < 0)
            return rc;
        off += n;
    }
    return 0;
}

int cl_wait(struct rt_task *t, struct cl *cl, const void *out, void *in, uint32_t in_max,
            struct cl_reply *reply)
{
    union nvme_tcp_pdu pdu;
    struct nvme_tcp_layout lay;

    *reply = (struct cl_reply){0};
    for (;;) {
        int rc = cl_recv_pdu(t, cl, &pdu, &lay, (uint8_t *)in + reply->data_len,
                             in_max - reply->data_len);

        if (rc < 0)
            return rc;
        switch (lay.type) {
        case NVME_TCP_RESP:
            reply->status = nvme_cqe_status(&pdu.resp.cqe);
            reply->sqhd = le16_get(pdu.resp.cqe.sqhd);
            reply->cid = le16_get(pdu.resp.cqe.cid);
            reply->dw0 = le32_get(pdu.resp.cqe.dw0);
            reply->dw1 = le32_get(pdu.resp.cqe.dw1);
            return 0;
        case NVME_TCP_C2H_DATA:
            if (le32_get(pdu.data.datao) != reply->data_len)
                return -EPROTO;
            reply->data_len += lay.data_len;
            if (lay.flags & NVME_TCP_F_SUCCESS) {
                reply->cid = le16_get(pdu.data.cccid);
                return 0;
            }
            break;
        case NVME_TCP_R2T:
            reply->r2ts++;
            if (out == NULL)
                return -EPROTO;
            rc = cl_answer_r2t(t, cl, &pdu.r2t, out);
            if (rc < 0)
                return rc;
            break;
        default:
            return -EPROTO;
        }
    }
}

int cl_cmd(struct rt_task *t, struct cl *cl, struct nvme_sqe *sqe, const void *out,
           uint32_t out_len, void *in, uint32_t in_len, struct cl_reply *reply)
{
    struct cl_reply ignored;
    bool in_capsule = out_len > 0 && out_len <= cl->capsule_max;
    int rc;

    if (in_capsule)
        nvme_tcp_sgl_in_capsule(sqe, out_len);
    else
        nvme_tcp_sgl_transport(sqe, out_len > 0 ? out_len : in_len);
    rc = cl_send_cmd(t, cl, sqe, out, in_capsule ? out_len : 0);
    if (rc < 0)
        return rc;
    return cl_wait(t, cl, out, in, in_len, reply != NULL ? reply : &ignored);
}

int cl_connect(struct rt_task *t, struct cl *cl, const char *subnqn, uint16_t qid, uint16_t sqsize,
               uint32_t kato, struct cl_reply *out)
{
    struct nvme_connect_cmd cmd = {.opc = NVME_OPC_FABRICS,
                                   .fctype = NVME_FC_CONNECT,
                                   .qid = le16_make(qid),
                                   .sqsize = le16_make(sqsize),
                                   .kato = le32_make(kato)};
    struct nvme_connect_data *data = calloc(1, sizeof(*data));
    struct nvme_sqe sqe;
    int rc;

    memcpy(data->hostid, cl->hostid, sizeof(data->hostid));
    data->cntlid = le16_make(qid == 0 ? 0xffff : cl->cntlid);
    snprintf(data->subnqn, sizeof(data->subnqn), "%s", subnqn);
    snprintf(data->hostnqn, sizeof(data->hostnqn), "%s", cl->hostnqn);
    memcpy(&sqe, &cmd, sizeof(sqe));
    rc = cl_cmd(t, cl, &sqe, data, sizeof(*data), NULL, 0, out);
    free(data);
    if (rc == 0 && out->status == 0)
        cl->cntlid = (uint16_t)out->dw0;
    return rc;
}

int cl_property_get(struct rt_task *t, struct cl *cl, uint32_t ofst, bool wide, uint64_t *out)
{
    struct nvme_property_cmd cmd = {.opc = NVME_OPC_FABRICS,
                                    .fctype = NVME_FC_PROPERTY_GET,
                                    .attrib = wide,
                                    .ofst = le32_make(ofst)};
    struct nvme_sqe sqe;
    struct cl_reply r = {0};
    int rc;

    memcpy(&sqe, &cmd, sizeof(sqe));
    rc = cl_cmd(t, cl, &sqe, NULL, 0, NULL, 0, &r);
    *out = r.dw0 | (uint64_t)r.dw1 << 32;
    return rc < 0 ? rc : r.status;
}

int cl_property_set(struct rt_task *t, struct cl *cl, uint32_t ofst, uint32_t value)
{
    struct nvme_property_cmd cmd = {.opc = NVME_OPC_FABRICS,
                                    .fctype = NVME_FC_PROPERTY_SET,
                                    .ofst = le32_make(ofst),
                                    .value = le64_make(value)};
    struct nvme_sqe sqe;
    struct cl_reply r = {0};
    int rc;

    memcpy(&sqe, &cmd, sizeof(sqe));
    rc = cl_cmd(t, cl, &sqe, NULL, 0, NULL, 0, &r);
    return rc < 0 ? rc : r.status;
}

int cl_admin(struct rt_task *t, struct cl *cl, const struct net_addr *addr, const char *subnqn,
             uint8_t dgst, unsigned css)
{
    uint32_t cc = NVME_CC_EN | css << NVME_CC_CSS_SHIFT | 6u << NVME_CC_IOSQES_SHIFT |
                  4u << NVME_CC_IOCQES_SHIFT;
    struct cl_reply r;
    uint64_t csts;
    int rc = cl_open(t, cl, addr, dgst, 0);

    if (rc == 0)
        rc = cl_connect(t, cl, subnqn, 0, 31, 0, &r);
    if (rc < 0)
        return rc;
    if (r.status != 0)
        return -EACCES;
    rc = cl_property_set(t, cl, NVME_REG_CC, cc);
    if (rc != 0)
        return -EPROTO;
    rc = cl_property_get(t, cl, NVME_REG_CSTS, false, &csts);
    if (rc != 0 || csts != NVME_CSTS_RDY)
        return -EPROTO;
    return 0;
}

int cl_io(struct rt_task *t, struct cl *cl, const struct cl *admin, const struct net_addr *addr,
          const char *subnqn, uint16_t qid, uint8_t dgst)
{
    struct cl_reply r;
    int rc = cl_open(t, cl, addr, dgst, 0);

    if (rc < 0)
        return rc;
    cl->cntlid = admin->cntlid;
    rc = cl_connect(t, cl, subnqn, qid, 127, 0, &r);
    if (rc < 0)
        return rc;
    return r.status == 0 ? 0 : -EACCES;
}

int cl_expect_term(struct rt_task *t, struct cl *cl, uint32_t *out_fei)
{
    union nvme_tcp_pdu pdu;
    struct nvme_tcp_layout lay;
    uint8_t rest[256];
    const uint8_t *at;
    int rc;

    do {
        rc = cl_recv_pdu(t, cl, &pdu, &lay, rest, sizeof(rest));
    } while (rc == 0 && lay.type != NVME_TCP_C2H_TERM);
    if (rc < 0)
        return rc;
    if (out_fei != NULL)
        *out_fei = le32_get(pdu.term.fei);
    /* Nothing comes after it. */
    rc = net_rx_need(t, &cl->rx, 1, &at);
    return rc == -ECONNRESET ? le16_get(pdu.term.fes) : -EPROTO;
}
