/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two directions of a connection, for protocols made of headers and data.
 *
 * Receiving (struct net_rx) belongs to the connection's task: small things are looked at in a
 * buffer of fixed size, large ones go straight from the socket to their place.
 *
 * Sending (struct net_tx) takes items from anywhere on the reactor and writes as many as there
 * are with one sendmsg at the end of the turn; each item's `done` runs when the kernel has it.
 */
#ifndef KVASIR_NET_STREAM_H
#define KVASIR_NET_STREAM_H

#include "rt/sock.h"

struct net_rx {
    struct rt_sock *sock;
    uint8_t *buf;
    size_t cap;
    size_t head; /* first byte not consumed */
    size_t tail; /* first free byte */
    uint64_t last_ns; /* when bytes last arrived */
    uint64_t bytes;   /* received so far */
};

void net_rx_init(struct net_rx *rx, struct rt_sock *sock, uint8_t *buf, size_t cap);

/**
 * Waits until n (<= cap) bytes are in the buffer and points *out at them; they stay until
 * net_rx_consume(). 0; -ECONNRESET the peer closed or reset; -ECANCELED, -ETIMEDOUT.
 */
int net_rx_need(struct rt_task *t, struct net_rx *rx, size_t n, const uint8_t **out);
/**
 * One receive into the room after `tail`, at most `max` bytes; moves nothing that is there. Never
 * waits. Returns bytes received; -EAGAIN nothing there, or no room; -ECONNRESET.
 */
ssize_t net_rx_fill(struct net_rx *rx, size_t max);
/** Goes on in another buffer: what has not been consumed (it has to fit) moves to its beginning. */
void net_rx_move(struct net_rx *rx, uint8_t *buf, size_t cap);
static inline size_t net_rx_avail(const struct net_rx *rx)
{
    return rx->tail - rx->head;
}
static inline const uint8_t *net_rx_at(const struct net_rx *rx)
{
    return rx->buf + rx->head;
}
static inline void net_rx_consume(struct net_rx *rx, size_t n)
{
    rx->head += n;
}
/**
 * Moves up to `len` bytes that are there now into the iovecs from byte `off` of them: what is
 * buffered first, the rest by one receive that puts what follows into the buffer. Never waits.
 * Returns bytes moved (0 < n <= len); -EAGAIN nothing there; -ECONNRESET.
 */
ssize_t net_rx_read_now(struct net_rx *rx, const struct iovec *iov, unsigned iovcnt, size_t off,
                        size_t len);
/** Waits for and moves exactly `len` bytes. Errors as net_rx_need. */
int net_rx_read(struct rt_task *t, struct net_rx *rx, const struct iovec *iov, unsigned iovcnt,
                size_t off, size_t len);

#define NET_TX_IOV_MAX 4

struct net_tx_item {
    struct net_tx_item *next;
    /* rc 0: handed to the kernel; negative: the connection is dead. From the loop; may free. */
    void (*done)(struct net_tx_item *item, int rc);
    struct iovec iov[NET_TX_IOV_MAX]; /* changed while sending */
    uint8_t iovcnt;
    uint8_t iov_at;
};

struct net_tx {
    struct rt_sock *sock;
    struct net_tx_item *head, **tail;
    size_t queued_bytes;      /* not yet taken by the kernel */
    uint64_t bytes;           /* taken by the kernel so far */
    uint64_t blocked_ns;      /* since when the peer takes nothing; 0: it does */
    int rc;                   /* why sending has ended; 0 while it goes */
    struct rt_defer flush;
    struct rt_req out_wait;
    void (*on_error)(struct net_tx *tx); /* once, from the loop, when the connection is dead */
    void (*on_drain)(struct net_tx *tx); /* may be NULL: everything queued has been taken */
    struct rt_cond drained;
};

void net_tx_init(struct net_tx *tx, struct rt_sock *sock, void (*on_error)(struct net_tx *),
                 void (*on_drain)(struct net_tx *));
/** Queues an item; it is sent at the end of this turn. On a dead connection done gets the error. */
void net_tx_add(struct net_tx *tx, struct net_tx_item *item);
/** Ends sending: whatever is queued gets `rc`. Call before the socket is closed. */
void net_tx_stop(struct net_tx *tx, int rc);
/** Waits until all that was queued is with the kernel (0), or the connection is dead. */
int net_tx_drain(struct rt_task *t, struct net_tx *tx);
/** Stops (-ECANCELED, unless it has ended before) and waits until nothing refers to tx any more. */
void net_tx_fini(struct rt_task *t, struct net_tx *tx);

#endif
