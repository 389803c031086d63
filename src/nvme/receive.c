/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a controller sends, checked against the commands in flight: a PDU that names no command,
 * moves data nobody asked for, or goes past what was asked for ends the connection with an
 * H2CTermReq. Data goes from the socket into the caller's memory.
 */
#include "nvme/internal.h"

#include "base/crc.h"

/* Tells the controller what it did wrong; the connection ends. */
static int fault(struct nvme_queue *q, const union nvme_tcp_pdu *pdu, uint32_t have,
                 struct nvme_tcp_fault f)
{
    struct bytes header = bytes_make(pdu, have);

    err_set(&q->end_why, 0, "the target sent a bad %s: %s", nvme_tcp_type_name(pdu->ch.type),
            nvme_tcp_fes_text(f.fes));
    nvme_send_term(q, f, header);
    return -EPROTO;
}

static struct nvme_tcp_fault bad_field(size_t offset)
{
    return (struct nvme_tcp_fault){.fes = NVME_TCP_FES_INVALID_FIELD, .fei = (uint32_t)offset};
}

static int receive_response(struct nvme_queue *q, const union nvme_tcp_pdu *pdu,
                            const struct nvme_tcp_layout *l)
{
    const struct nvme_cqe *cqe = &pdu->resp.cqe;
    struct nvme_slot *s = nvme_slot_of(q, le16_get(cqe->cid));
    uint32_t dw0 = le32_get(cqe->dw0), dw1 = le32_get(cqe->dw1);
    uint16_t status = nvme_cqe_status(cqe);

    if (s == NULL || s->answered)
        return fault(q, pdu, l->hlen, bad_field(offsetof(struct nvme_tcp_resp, cqe.cid)));
    net_rx_consume(&q->rx, l->plen);
    nvme_slot_answer(s, status, dw0, dw1);
    return 0;
}

/* Continues a CRC with [off, off+len) of the iovecs. */
static uint32_t crc_more(uint32_t crc, const struct iovec *iov, unsigned iovcnt, size_t off,
                         size_t len)
{
    for (unsigned i = 0; i < iovcnt && len > 0; i++) {
        size_t take;

        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        take = MIN(iov[i].iov_len - off, len);
        crc = crc32c(crc, (const uint8_t *)iov[i].iov_base + off, take);
        len -= take;
        off = 0;
    }
    return crc;
}

/* Waits until a stream's caller has given memory for the next byte. */
static int wait_window(struct rt_task *t, struct nvme_queue *q, struct nvme_req *req)
{
    req->fed(req);
    while (req->moved == req->window_off + req->window_len) {
        int rc = rt_cond_wait(t, &q->changed);

        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Takes len bytes of data in; for streams window by window. */
static int receive_data(struct rt_task *t, struct nvme_queue *q, struct nvme_slot *s, uint32_t len,
                        uint32_t *out_crc)
{
    struct nvme_req *req = s->req;
    uint32_t crc = 0;

    while (len > 0) {
        uint32_t off = req->moved - req->window_off;
        uint32_t now = MIN(len, req->window_len - off);
        int rc;

        if (now == 0) {
            rc = wait_window(t, q, req);
            if (rc < 0)
                return rc;
            continue;
        }
        rc = net_rx_read(t, &q->rx, req->iov, req->iovcnt, off, now);
        if (rc < 0)
            return rc;
        if (q->in.ddgst)
            crc = crc_more(crc, req->iov, req->iovcnt, off, now);
        req->moved += now;
        len -= now;
        s->progress_ns = rt_now();
    }
    *out_crc = crc;
    return 0;
}

static int receive_digest(struct rt_task *t, struct nvme_queue *q, struct nvme_slot *s,
                          uint32_t crc)
{
    const uint8_t *digest;
    int rc = net_rx_need(t, &q->rx, NVME_TCP_DIGEST_BYTES, &digest);

    if (rc < 0)
        return rc;
    if (!nvme_tcp_digest_ok(digest, crc))
        s->digest_bad = true;
    net_rx_consume(&q->rx, NVME_TCP_DIGEST_BYTES);
    return 0;
}

static int receive_c2h(struct rt_task *t, struct nvme_queue *q, const union nvme_tcp_pdu *pdu,
                       const struct nvme_tcp_layout *l)
{
    struct nvme_slot *s = nvme_slot_of(q, le16_get(pdu->data.cccid));
    bool success = l->flags & NVME_TCP_F_SUCCESS;
    uint32_t crc;
    int rc;

    if (s == NULL || s->answered || s->req->dir != NVME_DIR_C2H)
        return fault(q, pdu, l->hlen, bad_field(offsetof(struct nvme_tcp_data, cccid)));
    if (le32_get(pdu->data.datao) != s->req->moved ||
        l->data_len > s->req->data_len - s->req->moved)
        return fault(q, pdu, l->hlen, (struct nvme_tcp_fault){.fes = NVME_TCP_FES_OUT_OF_RANGE});
    net_rx_consume(&q->rx, l->data_off);
    rc = receive_data(t, q, s, l->data_len, &crc);
    if (rc == 0 && l->ddgst)
        rc = receive_digest(t, q, s, crc);
    if (rc == 0 && success)
        nvme_slot_answer(s, NVME_SC_SUCCESS, 0, 0);
    return rc;
}

static int receive_r2t(struct nvme_queue *q, const union nvme_tcp_pdu *pdu,
                       const struct nvme_tcp_layout *l)
{
    struct nvme_slot *s = nvme_slot_of(q, le16_get(pdu->r2t.cccid));
    uint32_t off = le32_get(pdu->r2t.r2to), len = le32_get(pdu->r2t.r2tl);
    struct nvme_req *req;

    if (s == NULL || s->answered || s->req->dir != NVME_DIR_H2C)
        return fault(q, pdu, l->hlen, bad_field(offsetof(struct nvme_tcp_r2t, cccid)));
    if (s->r2t_left > 0)
        return fault(q, pdu, l->hlen, (struct nvme_tcp_fault){.fes = NVME_TCP_FES_LIMIT});
    req = s->req;
    if (off != req->moved + s->sending || len > req->data_len - off)
        return fault(q, pdu, l->hlen, (struct nvme_tcp_fault){.fes = NVME_TCP_FES_OUT_OF_RANGE});
    s->ttag = le16_get(pdu->r2t.ttag);
    s->r2t_left = len;
    s->progress_ns = rt_now();
    net_rx_consume(&q->rx, l->plen);
    if (req->fed != NULL && req->moved == req->window_off + req->window_len)
        req->fed(req);
    else
        nvme_send_data(q, s);
    return 0;
}

static int receive_icresp(struct nvme_queue *q, const union nvme_tcp_pdu *pdu,
                          const struct nvme_tcp_layout *l)
{
    const struct nvme_tcp_icresp *resp = &pdu->icresp;
    const struct nvme_ctrl_opts *opts = &q->ctrl->opts;
    uint8_t want =
        (opts->hdgst ? NVME_TCP_DGST_HEADER : 0) | (opts->ddgst ? NVME_TCP_DGST_DATA : 0);

    /* Digests that were not asked for, or that are refused, are no choice of the target's. */
    if (resp->dgst != want)
        return fault(q, pdu, l->hlen, bad_field(offsetof(struct nvme_tcp_icresp, dgst)));
    q->in.hdgst = q->out.hdgst = opts->hdgst;
    q->in.ddgst = q->out.ddgst = opts->ddgst;
    q->in.ready = true;
    q->out.pda = resp->cpda;
    q->h2c_data_max = le32_get(resp->maxh2cdata);
    q->shaken = true;
    net_rx_consume(&q->rx, l->plen);
    rt_cond_wake_all(&q->changed);
    return 0;
}

/* The target ends the connection and says why; that is never answered. */
static int receive_term(struct nvme_queue *q, const union nvme_tcp_pdu *pdu)
{
    err_set(&q->end_why, 0, "the target ended the connection: %s",
            nvme_tcp_fes_text(le16_get(pdu->term.fes)));
    return -EPROTO;
}

int nvme_receive(struct rt_task *t, struct nvme_queue *q)
{
    const union nvme_tcp_pdu *pdu;
    struct nvme_tcp_layout l;
    struct nvme_tcp_fault f;
    const uint8_t *p;
    int rc;

    rc = net_rx_need(t, &q->rx, sizeof(pdu->ch), &p);
    if (rc < 0)
        return rc;
    pdu = (const union nvme_tcp_pdu *)p;
    if (nvme_tcp_ch_decode(&q->in, &pdu->ch, &l, &f) < 0)
        return fault(q, pdu, sizeof(pdu->ch), f);
    rc = net_rx_need(t, &q->rx, l.data_off, &p);
    if (rc < 0)
        return rc;
    pdu = (const union nvme_tcp_pdu *)p;
    q->stats.pdus_in++;
    if (nvme_tcp_hdr_check(&l, pdu, &f) < 0)
        return fault(q, pdu, l.hlen, f);
    switch (l.type) {
    case NVME_TCP_RESP:
        return receive_response(q, pdu, &l);
    case NVME_TCP_C2H_DATA:
        return receive_c2h(t, q, pdu, &l);
    case NVME_TCP_R2T:
        return receive_r2t(q, pdu, &l);
    case NVME_TCP_ICRESP:
        return receive_icresp(q, pdu, &l);
    default:
        return receive_term(q, pdu);
    }
}
