/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receive buffers. A connection owns a small one for its whole life, enough for the largest
 * capsule. While its socket has something it borrows a large one of the pool, so that one receive
 * brings many capsules; data in capsules is used where it arrived, and the buffer is counted by
 * the commands that do. A connection that waits for its host borrows nothing.
 */
#include "front/nvmf/internal.h"

/* Where data of known place is expected next, headers only are received into the buffer. */
#define HEADERS_BYTES 512u
/* The count stands at the end of the pool's buffer itself. */
#define LARGE_CAP (RT_BUF_LARGE_BYTES - sizeof(struct nvmf_rxbuf))

int nvmf_rx_init(struct nvmf_conn *c)
{
    uint32_t bytes = (uint32_t)round_up_u64(c->tgt->cfg.in_capsule_bytes + 1024u, 4096);

    c->own_bytes = MAX(bytes, 16384u);
    c->own = aligned_alloc(4096, c->own_bytes);
    if (c->own == NULL)
        return -ENOMEM;
    c->own_rx = (struct nvmf_rxbuf){.refs = 1};
    c->rxb = &c->own_rx;
    net_rx_init(&c->rx, &c->sock, c->own, c->own_bytes);
    return 0;
}

static void rxb_put(struct nvmf_conn *c, struct nvmf_rxbuf *rxb)
{
    must(rxb->refs > 0);
    if (--rxb->refs > 0)
        return;
    if (rxb->buf != NULL)
        rt_buf_put(rxb->buf);
    rt_cond_wake_all(&c->rx_free);
}

void nvmf_rx_fini(struct nvmf_conn *c)
{
    if (c->rxb != NULL)
        rxb_put(c, c->rxb);
    c->rxb = NULL;
    free(c->own);
    c->own = NULL;
}

struct nvmf_rxbuf *nvmf_rx_pin(struct nvmf_conn *c)
{
    c->rxb->refs++;
    return c->rxb;
}

void nvmf_rx_unpin(struct nvmf_conn *c, struct nvmf_rxbuf *rxb)
{
    rxb_put(c, rxb);
    /* The current buffer has one reference of the connection's; it may wait for the others. */
    if (rxb == c->rxb && rxb->refs == 1)
        rt_cond_wake_all(&c->rx_free);
}

/* Makes `rxb` the current buffer; what has not been consumed moves into it. */
static void rx_switch(struct nvmf_conn *c, struct nvmf_rxbuf *rxb, uint8_t *mem, size_t cap)
{
    struct nvmf_rxbuf *old = c->rxb;

    net_rx_move(&c->rx, mem, cap);
    c->rxb = rxb;
    rxb_put(c, old);
}

static bool to_large(struct nvmf_conn *c)
{
    struct rt_buf *buf = rt_buf_get(RT_BUF_LARGE_BYTES);
    struct nvmf_rxbuf *rxb;

    if (buf == NULL)
        return false;
    rxb = (struct nvmf_rxbuf *)(buf->data + LARGE_CAP);
    *rxb = (struct nvmf_rxbuf){.buf = buf, .refs = 1};
    rx_switch(c, rxb, buf->data, LARGE_CAP);
    return true;
}

static bool to_own(struct nvmf_conn *c)
{
    if (c->own_rx.refs > 0 || net_rx_avail(&c->rx) > c->own_bytes)
        return false;
    c->own_rx.refs = 1;
    rx_switch(c, &c->own_rx, c->own, c->own_bytes);
    return true;
}

void nvmf_rx_rewind(struct nvmf_conn *c)
{
    if (c->rx.head == c->rx.tail && c->rxb->refs == 1)
        c->rx.head = c->rx.tail = 0;
}

int nvmf_rx_park(struct rt_task *t, struct nvmf_conn *c)
{
    int rc;

    if (c->rxb->buf != NULL)
        to_own(c);
    c->parked = true;
    rc = rt_sock_readable(t, &c->sock);
    c->parked = false;
    if (rc == 0 && c->closing)
        rc = -ECANCELED;
    return rc;
}

/* Sees to it that the current buffer has room for n bytes from `head` on. Waits for commands that
 * use what is in it, if there is nowhere else to go. */
static int make_room(struct rt_task *t, struct nvmf_conn *c, size_t n)
{
    int rc;

    nvmf_rx_rewind(c);
    if (c->rxb->buf == NULL && c->nin == 0)
        to_large(c);
    while (c->rx.cap - c->rx.head < n) {
        if (c->rxb->refs == 1) {
            net_rx_move(&c->rx, c->rx.buf, c->rx.cap);
            continue;
        }
        if (to_large(c) || to_own(c))
            continue;
        rc = rt_cond_wait(t, &c->rx_free);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int nvmf_rx_need(struct rt_task *t, struct nvmf_conn *c, size_t n)
{
    int rc;

    while (net_rx_avail(&c->rx) < n) {
        ssize_t got;

        rc = make_room(t, c, n);
        if (rc < 0)
            return rc;
        got = net_rx_fill(&c->rx, c->nin > 0 ? MAX(HEADERS_BYTES, n) : SIZE_MAX);
        if (got == -EAGAIN)
            got = nvmf_rx_park(t, c);
        if (got < 0)
            return (int)got;
    }
    return 0;
}
