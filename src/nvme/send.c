/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes out: a command is one item of the connection's net_tx (header, data in the capsule,
 * digest), the data of a larger write one H2CData after the other, each straight from the
 * caller's memory. A slot has room for one PDU at a time.
 */
#include "nvme/internal.h"

#include "base/crc.h"

static void item_done(struct net_tx_item *item, int rc);
static void first_item_done(struct net_tx_item *item, int rc);

static struct nvme_slot *slot_of_first(struct net_tx_item *item)
{
    return container_of(item, struct nvme_slot, item[0]);
}

/*
 * Describes [off, off+len) of the command's window in at most `max` entries, as far as they reach;
 * *out_n entries. What does not fit is cut at a multiple of four bytes, as data offsets want it.
 * Returns the bytes described.
 */
static uint32_t gather(const struct nvme_req *req, uint32_t off, uint32_t len, struct iovec *out,
                       unsigned max, unsigned *out_n)
{
    uint32_t got = 0;
    unsigned n = 0;

    for (unsigned i = 0; i < req->iovcnt && got < len && n < max; i++) {
        size_t here = req->iov[i].iov_len;

        if (off >= here) {
            off -= (uint32_t)here;
            continue;
        }
        out[n].iov_base = (uint8_t *)req->iov[i].iov_base + off;
        out[n].iov_len = MIN(here - off, (size_t)(len - got));
        got += (uint32_t)out[n++].iov_len;
        off = 0;
    }
    for (uint32_t cut = got < len ? got & 3 : 0; cut > 0;) {
        uint32_t here = MIN(cut, (uint32_t)out[n - 1].iov_len);

        out[n - 1].iov_len -= here;
        cut -= here;
        got -= here;
        if (out[n - 1].iov_len == 0)
            n--;
    }
    *out_n = n;
    return got;
}

/* Queues the slot's PDU: hdr_len bytes of s->hdr, then the data, then its digest. */
static void queue_pdu(struct nvme_queue *q, struct nvme_slot *s, size_t hdr_len,
                      const struct iovec *data, unsigned ndata)
{
    struct iovec all[1 + NVME_SEND_IOV_MAX + 1];
    unsigned n = 0;

    all[n++] = (struct iovec){.iov_base = s->hdr, .iov_len = hdr_len};
    for (unsigned i = 0; i < ndata; i++)
        all[n++] = data[i];
    if (ndata > 0 && q->out.ddgst) {
        le32_put(s->digest, crc32c_iov(0, data, ndata));
        all[n++] = (struct iovec){.iov_base = s->digest, .iov_len = sizeof(s->digest)};
    }
    for (unsigned i = 0, at = 0; at < n; i++) {
        struct net_tx_item *item = &s->item[i];

        item->done = i == 0 ? first_item_done : item_done;
        item->iovcnt = 0;
        while (at < n && item->iovcnt < NET_TX_IOV_MAX)
            item->iov[item->iovcnt++] = all[at++];
        s->items_busy++;
        q->items_busy++;
        net_tx_add(&q->tx, item);
    }
}

void nvme_send_capsule(struct nvme_queue *q, struct nvme_slot *s)
{
    struct nvme_req *req = s->req;
    struct nvme_sqe *sqe = &req->sqe;
    struct iovec data[NVME_SEND_IOV_MAX];
    unsigned ndata = 0;
    uint32_t in_capsule = 0;

    sqe->cid = le16_make(s->cid);
    sqe->flags = (uint8_t)((sqe->flags & NVME_SQE_FUSE_MASK) | NVME_SQE_PSDT_SGL);
    if (req->dir == NVME_DIR_H2C && req->data_len <= q->capsule_data_max && req->fed == NULL)
        in_capsule = gather(req, 0, req->data_len, data, NVME_SEND_IOV_MAX, &ndata);
    if (in_capsule > 0 && in_capsule == req->data_len) {
        nvme_tcp_sgl_in_capsule(sqe, in_capsule);
    } else {
        in_capsule = 0;
        ndata = 0;
        nvme_tcp_sgl_transport(sqe, req->dir == NVME_DIR_NONE ? 0 : req->data_len);
    }
    s->sending = in_capsule;
    queue_pdu(q, s, nvme_tcp_put_cmd(s->hdr, &q->out, sqe, in_capsule), data, ndata);
}

void nvme_send_data(struct nvme_queue *q, struct nvme_slot *s)
{
    struct nvme_req *req = s->req;
    uint32_t window_left = req->window_off + req->window_len - req->moved;
    uint32_t len = MIN(MIN(s->r2t_left, q->h2c_data_max), window_left);
    struct iovec data[NVME_SEND_IOV_MAX];
    unsigned ndata;
    size_t hdr_len;

    if (len == 0 || s->items_busy > 0 || q->end_rc < 0)
        return;
    len = gather(req, req->moved - req->window_off, len, data, NVME_SEND_IOV_MAX, &ndata);
    must(len > 0);
    s->r2t_left -= len;
    s->sending = len;
    hdr_len =
        nvme_tcp_put_h2c_data(s->hdr, &q->out, s->cid, s->ttag, req->moved, len, s->r2t_left == 0);
    queue_pdu(q, s, hdr_len, data, ndata);
}

static void pdu_done(struct nvme_slot *s, int rc)
{
    struct nvme_queue *q = s->queue;
    struct nvme_req *req = s->req;
    uint32_t sent = s->sending;

    s->items_busy--;
    q->items_busy--;
    if (rc < 0 || q->end_rc < 0) {
        if (q->items_busy == 0)
            rt_cond_wake_all(&q->changed);
        return;
    }
    if (s->items_busy > 0)
        return;
    s->sending = 0;
    req->moved += sent;
    if (s->answered) {
        nvme_slot_settle(s);
        return;
    }
    if (sent > 0)
        s->progress_ns = rt_now();
    if (sent > 0 && req->fed != NULL && req->moved == req->window_off + req->window_len)
        req->fed(req);
    else if (s->r2t_left > 0)
        nvme_send_data(q, s);
}

static void first_item_done(struct net_tx_item *item, int rc)
{
    pdu_done(slot_of_first(item), rc);
}

static void item_done(struct net_tx_item *item, int rc)
{
    pdu_done(container_of(item, struct nvme_slot, item[1]), rc);
}

static void term_done(struct net_tx_item *item, int rc)
{
    struct nvme_queue *q = container_of(item, struct nvme_queue, term_item);

    (void)rc;
    q->term_busy = false;
    rt_cond_wake_all(&q->changed);
}

void nvme_send_term(struct nvme_queue *q, struct nvme_tcp_fault fault, struct bytes header)
{
    if (q->term_busy)
        return;
    q->term_busy = true;
    q->term_item = (struct net_tx_item){.done = term_done, .iovcnt = 1};
    q->term_item.iov[0].iov_base = q->term;
    q->term_item.iov[0].iov_len = nvme_tcp_put_term(q->term, false, fault, header);
    net_tx_add(&q->tx, &q->term_item);
}
