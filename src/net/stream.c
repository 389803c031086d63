/* SPDX-License-Identifier: Apache-2.0 */
/* Receiving by copying as little as possible, sending as much as possible with one call. */
#include "net/stream.h"

#include "base/bytes.h"

#include <string.h>

/* iovecs of one sendmsg; at most NET_TX_IOV_MAX of them come from one item. */
#define TX_BATCH 256
/* Calls of one flush, so that a fast reader does not keep the reactor from everybody else. */
#define TX_ROUNDS 16
/* iovecs of the caller that one receive fills. */
#define RX_BATCH 15
/* Bytes that one net_rx_read() takes before others run. */
#define RX_TURN_BYTES (1u << 20)

/* --- receiving -------------------------------------------------------------------------------- */

void net_rx_init(struct net_rx *rx, struct rt_sock *sock, uint8_t *buf, size_t cap)
{
    *rx = (struct net_rx){.sock = sock, .buf = buf, .cap = cap, .last_ns = rt_now()};
}

void net_rx_move(struct net_rx *rx, uint8_t *buf, size_t cap)
{
    size_t have = net_rx_avail(rx);

    must(have <= cap);
    if (have > 0)
        memmove(buf, net_rx_at(rx), have);
    rx->buf = buf;
    rx->cap = cap;
    rx->head = 0;
    rx->tail = have;
}

/* One receive; the end of the stream is an error here: no protocol of ours ends in the middle. */
static ssize_t receive(struct net_rx *rx, const struct iovec *iov, unsigned iovcnt)
{
    ssize_t n = rt_sock_recv(rx->sock, iov, iovcnt);

    if (n > 0) {
        rx->last_ns = rt_now();
        rx->bytes += (uint64_t)n;
        return n;
    }
    return n == -EAGAIN ? -EAGAIN : -ECONNRESET;
}

ssize_t net_rx_fill(struct net_rx *rx, size_t max)
{
    struct iovec iov = {.iov_base = rx->buf + rx->tail, .iov_len = MIN(rx->cap - rx->tail, max)};
    ssize_t n;

    if (iov.iov_len == 0)
        return -EAGAIN;
    n = receive(rx, &iov, 1);
    if (n > 0)
        rx->tail += (size_t)n;
    return n;
}

int net_rx_need(struct rt_task *t, struct net_rx *rx, size_t n, const uint8_t **out)
{
    must(n <= rx->cap);
    while (net_rx_avail(rx) < n) {
        ssize_t got;
        int rc;

        if (rx->head == rx->tail || rx->cap - rx->head < n)
            net_rx_move(rx, rx->buf, rx->cap);
        got = net_rx_fill(rx, SIZE_MAX);
        if (got == -EAGAIN) {
            rc = rt_sock_readable(t, rx->sock);
            if (rc < 0)
                return rc;
        } else if (got < 0) {
            return (int)got;
        }
    }
    *out = net_rx_at(rx);
    return 0;
}

ssize_t net_rx_read_now(struct net_rx *rx, const struct iovec *iov, unsigned iovcnt, size_t off,
                        size_t len)
{
    struct iovec part[RX_BATCH + 1];
    size_t have = MIN(net_rx_avail(rx), len);
    size_t room = rx->cap - rx->tail;
    size_t want = 0;
    unsigned n = 0;
    ssize_t got;

    if (have > 0) {
        have = iov_copy_in(iov, iovcnt, off, net_rx_at(rx), have);
        net_rx_consume(rx, have);
        return (ssize_t)have;
    }
    for (unsigned i = 0; i < iovcnt && n < RX_BATCH && want < len; i++) {
        size_t take;

        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        take = MIN(iov[i].iov_len - off, len - want);
        part[n++] = (struct iovec){.iov_base = (uint8_t *)iov[i].iov_base + off, .iov_len = take};
        want += take;
        off = 0;
    }
    must(want > 0);
    if (want == len && room > 0)
        part[n++] = (struct iovec){.iov_base = rx->buf + rx->tail, .iov_len = room};
    got = receive(rx, part, n);
    if (got > (ssize_t)want) {
        rx->tail += (size_t)got - want;
        got = (ssize_t)want;
    }
    return got;
}

int net_rx_read(struct rt_task *t, struct net_rx *rx, const struct iovec *iov, unsigned iovcnt,
                size_t off, size_t len)
{
    size_t turn = 0;
    int rc;

    while (len > 0) {
        ssize_t got;

        if (rx->head == rx->tail)
            rx->head = rx->tail = 0;
        got = net_rx_read_now(rx, iov, iovcnt, off, len);
        if (got == -EAGAIN) {
            rc = rt_sock_readable(t, rx->sock);
            if (rc < 0)
                return rc;
            turn = 0;
            continue;
        }
        if (got < 0)
            return (int)got;
        off += (size_t)got;
        len -= (size_t)got;
        turn += (size_t)got;
        if (turn >= RX_TURN_BYTES) {
            rc = rt_yield(t);
            if (rc < 0)
                return rc;
            turn = 0;
        }
    }
    return 0;
}

/* --- sending ---------------------------------------------------------------------------------- */

static struct net_tx_item *tx_pop(struct net_tx *tx)
{
    struct net_tx_item *item = tx->head;

    tx->head = item->next;
    if (tx->head == NULL)
        tx->tail = &tx->head;
    return item;
}

/* Ends every queued item with tx->rc. Its `done` may queue others, which end here as well. */
static void tx_fail(struct net_tx *tx)
{
    while (tx->head != NULL) {
        struct net_tx_item *item = tx_pop(tx);

        item->done(item, tx->rc);
    }
    tx->queued_bytes = 0;
    tx->blocked_ns = 0;
    rt_cond_wake_all(&tx->drained);
}

/* Takes `n` bytes that the kernel has off the queue. */
static void tx_advance(struct net_tx *tx, size_t n)
{
    tx->queued_bytes -= n;
    tx->bytes += n;
    while (tx->head != NULL) {
        struct net_tx_item *item = tx->head;

        while (item->iov_at < item->iovcnt && item->iov[item->iov_at].iov_len <= n)
            n -= item->iov[item->iov_at++].iov_len;
        if (item->iov_at < item->iovcnt) {
            struct iovec *v = &item->iov[item->iov_at];

            v->iov_base = (uint8_t *)v->iov_base + n;
            v->iov_len -= n;
            return;
        }
        tx_pop(tx);
        item->done(item, 0);
        if (n == 0)
            return;
    }
}

/* One sendmsg. 1: there may be more to send now; 0: no; negative errno: the connection is dead. */
static int tx_send(struct net_tx *tx)
{
    struct iovec iov[TX_BATCH];
    unsigned n = 0;
    size_t want = 0;
    ssize_t sent;

    for (struct net_tx_item *i = tx->head; i != NULL && n + NET_TX_IOV_MAX <= TX_BATCH;
         i = i->next) {
        for (unsigned k = i->iov_at; k < i->iovcnt; k++) {
            iov[n++] = i->iov[k];
            want += i->iov[k].iov_len;
        }
    }
    sent = rt_sock_send(tx->sock, iov, n);
    if (sent == -EAGAIN)
        return 0;
    if (sent < 0)
        return (int)sent;
    tx->blocked_ns = 0;
    tx_advance(tx, (size_t)sent);
    return (size_t)sent == want;
}

static void tx_flush(struct net_tx *tx)
{
    int more = 1;

    if (tx->rc < 0) {
        tx_fail(tx);
        return;
    }
    for (int i = 0; i < TX_ROUNDS && more > 0 && tx->head != NULL; i++)
        more = tx_send(tx);
    if (more < 0 && tx->rc == 0) {
        tx->rc = more;
        tx_fail(tx);
        if (tx->on_error != NULL)
            tx->on_error(tx);
        return;
    }
    if (tx->head == NULL) {
        rt_cond_wake_all(&tx->drained);
        if (tx->on_drain != NULL)
            tx->on_drain(tx);
        return;
    }
    if (more == 0 && tx->blocked_ns == 0)
        tx->blocked_ns = rt_now();
    if (tx->out_wait.state == RT_REQ_IDLE)
        rt_sock_wait_out(tx->sock, &tx->out_wait);
}

static void flush_defer(struct rt_defer *d)
{
    struct net_tx *tx = container_of(d, struct net_tx, flush);

    /* While the kernel takes nothing, out_wait is what continues. */
    if (tx->head != NULL && (tx->out_wait.state == RT_REQ_IDLE || tx->rc < 0))
        tx_flush(tx);
}

static void out_wait_done(struct rt_req *req)
{
    struct net_tx *tx = container_of(req, struct net_tx, out_wait);

    if (req->rc < 0 && tx->rc == 0)
        tx->rc = -ECONNRESET;
    if (tx->head != NULL || tx->rc < 0)
        tx_flush(tx);
}

void net_tx_init(struct net_tx *tx, struct rt_sock *sock, void (*on_error)(struct net_tx *),
                 void (*on_drain)(struct net_tx *))
{
    *tx = (struct net_tx){
        .sock = sock, .on_error = on_error, .on_drain = on_drain, .flush.fn = flush_defer};
    tx->tail = &tx->head;
    list_init(&tx->drained.waiters);
    rt_req_init(&tx->out_wait, out_wait_done);
}

void net_tx_add(struct net_tx *tx, struct net_tx_item *item)
{
    item->next = NULL;
    item->iov_at = 0;
    for (unsigned i = 0; i < item->iovcnt; i++)
        tx->queued_bytes += item->iov[i].iov_len;
    *tx->tail = item;
    tx->tail = &item->next;
    rt_defer(&tx->flush);
}

void net_tx_stop(struct net_tx *tx, int rc)
{
    must(rc < 0);
    if (tx->rc == 0)
        tx->rc = rc;
    tx_fail(tx);
    rt_req_cancel(&tx->out_wait);
}

int net_tx_drain(struct rt_task *t, struct net_tx *tx)
{
    while (tx->head != NULL && tx->rc == 0) {
        int rc = rt_cond_wait(t, &tx->drained);

        if (rc < 0)
            return rc;
    }
    return tx->rc;
}

void net_tx_fini(struct rt_task *t, struct net_tx *tx)
{
    if (tx->sock == NULL)
        return;
    net_tx_stop(tx, -ECANCELED);
    while (tx->flush.queued || tx->out_wait.state != RT_REQ_IDLE)
        rt_yield(t);
    tx->sock = NULL;
}
