/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/net.h"

#include "base/bytes.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define BACKLOG_RETRY_NS (200 * NS_PER_MS) /* a SYN that found no room is sent again */
#define RETRANSMIT_NS                                                                              \
    (300 * NS_PER_MS)             /* so is what a machine that is down did not acknowledge         \
                                   */
#define CONNECT_NS (4 * NS_PER_S) /* after which connecting gives up */
#define SEGMENT_MAX 16384u

struct conn;

/* One side's hold of a connection: a socket, or a place in a listener's queue. */
struct end {
    struct conn *conn;
    uint8_t side;                /* conn->end[side] */
    struct sim_machine *machine; /* NULL: closed, nothing listens any more */
    unsigned boot;               /* of that machine */
    bool lost;                   /* the machine crashed: whatever arrives is answered by a reset */
    int fd;
    struct rt_sock *sock; /* NULL: not attached */
    struct sim_reactor *reactor;
    struct sim_due due;
    bool due_in, due_out;
    bool connected; /* the answer to a SYN has come, or one has been accepted */
    bool shut;      /* sends no more */
    int err;        /* a reset has arrived */
    uint16_t port;
    struct list queued; /* in the listener's queue */
};

/* Bytes of end i on their way to end 1-i. Positions count from the beginning of the connection. */
struct pipe {
    uint8_t *ring;
    uint32_t cap;
    uint64_t sent;    /* by the sender, into the ring */
    uint64_t arrived; /* at the receiver */
    uint64_t taken;   /* by the receiver's program */
    uint64_t acked;   /* taken, as far as the sender knows */
    uint64_t fin_at;  /* where the stream ends; UINT64_MAX: not yet known */
    bool fin_arrived;
    bool ack_under_way;
    uint64_t reset_at; /* the connection dies when so much has been sent */
    uint64_t last_arrival_ns;
};

enum conn_state { CONN_SYN, CONN_OPEN, CONN_REFUSED };

struct conn {
    struct list link;
    uint64_t id;
    enum conn_state state;
    struct end end[2];
    struct pipe pipe[2];
    unsigned under_way; /* segments */
    uint64_t syn_ns;
    bool v6;
};

enum seg_kind { SEG_SYN, SEG_SYN_OK, SEG_REFUSED, SEG_DATA, SEG_FIN, SEG_ACK, SEG_RST };

struct seg {
    struct sim_event ev;
    struct conn *conn;
    uint8_t to; /* which end */
    enum seg_kind kind;
    uint64_t pos; /* DATA: where it ends; ACK: what has been taken */
};

struct listener {
    struct list link; /* machine's listeners */
    struct sim_machine *machine;
    int fd;
    struct rt_sock *sock;
    struct sim_reactor *reactor;
    struct sim_due due;
    bool due_queued;
    uint16_t port;
    bool v6;
    unsigned backlog, nqueue;
    struct list queue; /* struct end */
};

/* --- addresses ---------------------------------------------------------------------------------
 */

void sim_net_addr_text(const struct sim_machine *m, uint16_t port, char *out, size_t max)
{
    snprintf(out, max, "10.0.0.%u:%u", m->idx + 1, port);
}

static uint16_t port_of(const struct sockaddr *addr)
{
    if (addr->sa_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)(const void *)addr)->sin6_port);
    return ntohs(((const struct sockaddr_in *)(const void *)addr)->sin_port);
}

/* The machine of an address: by its last byte; a loopback address is the machine itself. */
static struct sim_machine *machine_of(const struct sockaddr *addr)
{
    uint8_t last;

    if (addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *sin6 = (const struct sockaddr_in6 *)(const void *)addr;

        if (IN6_IS_ADDR_LOOPBACK(&sin6->sin6_addr))
            return sim.here;
        last = sin6->sin6_addr.s6_addr[15];
    } else {
        uint32_t ip = ntohl(((const struct sockaddr_in *)(const void *)addr)->sin_addr.s_addr);

        if (ip >> 24 == 127)
            return sim.here;
        last = (uint8_t)ip;
    }
    return last >= 1 && last <= sim.nmachines ? &sim.machine[last - 1] : NULL;
}

static void put_addr(bool v6, const struct sim_machine *m, uint16_t port,
                     struct sockaddr_storage *out)
{
    struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)out;
    struct sockaddr_in *sin = (struct sockaddr_in *)out;

    memset(out, 0, sizeof(*out));
    if (v6) {
        sin6->sin6_family = AF_INET6;
        sin6->sin6_port = htons(port);
        sin6->sin6_addr.s6_addr[0] = 0xfd;
        sin6->sin6_addr.s6_addr[15] = (uint8_t)(m->idx + 1);
    } else {
        sin->sin_family = AF_INET;
        sin->sin_port = htons(port);
        sin->sin_addr.s_addr = htonl(0x0a000001 + m->idx);
    }
}

/* --- segments ----------------------------------------------------------------------------------
 */

static void seg_arrives(struct sim_event *ev);

static uint64_t net_delay(void)
{
    const struct sim_weather *w = &sim.weather;

    if (sim_chance(&sim.net, w->net_slow_ppm))
        return sim_between(&sim.net, NS_PER_MS, 300 * NS_PER_MS);
    return w->net_delay_ns / 2 + sim_skewed(&sim.net, 0, w->net_jitter_ns);
}

/* Of one direction what was sent first arrives first, but for resets and acknowledgements. */
static void seg_send(struct conn *c, unsigned to, enum seg_kind kind, uint64_t pos)
{
    struct seg *s = calloc(1, sizeof(*s));
    struct pipe *p = &c->pipe[1 - to];
    uint64_t at = sim.now_ns + net_delay();

    must(s != NULL);
    *s = (struct seg){.ev.fn = seg_arrives, .conn = c, .to = (uint8_t)to, .kind = kind, .pos = pos};
    if (kind == SEG_DATA || kind == SEG_FIN) {
        at = MAX(at, p->last_arrival_ns);
        p->last_arrival_ns = at;
    }
    c->under_way++;
    sim.nsegs++;
    sim_event_at(&s->ev, at);
}

static void conn_maybe_free(struct conn *c)
{
    if (c->under_way > 0 || c->end[0].machine != NULL || c->end[1].machine != NULL)
        return;
    if (c->end[0].due_in || c->end[0].due_out || c->end[1].due_in || c->end[1].due_out)
        return;
    list_del(&c->link);
    free(c->pipe[0].ring);
    free(c->pipe[1].ring);
    free(c);
}

/* --- what a program is told --------------------------------------------------------------------
 */

static void end_due(struct sim_due *due)
{
    struct end *e = container_of(due, struct end, due);
    bool in = e->due_in, out = e->due_out;

    e->due_in = e->due_out = false;
    rt_sock_ready(e->sock, in, out);
}

static void end_tell(struct end *e, bool in, bool out)
{
    if (e->sock == NULL)
        return;
    if (!e->due_in && !e->due_out) {
        e->due.run = end_due;
        sim_due_add(e->reactor, &e->due);
    }
    e->due_in |= in;
    e->due_out |= out;
}

static void end_detach(struct end *e)
{
    if (e->due_in || e->due_out)
        list_del(&e->due.link);
    e->due_in = e->due_out = false;
    e->sock = NULL;
    e->machine = NULL;
}

static void listener_due(struct sim_due *due)
{
    struct listener *l = container_of(due, struct listener, due);

    l->due_queued = false;
    rt_sock_ready(l->sock, true, false);
}

static void listener_tell(struct listener *l)
{
    if (l->due_queued)
        return;
    l->due_queued = true;
    l->due.run = listener_due;
    sim_due_add(l->reactor, &l->due);
}

/* --- segments arrive ---------------------------------------------------------------------------
 */

static struct listener *listener_at(struct sim_machine *m, uint16_t port, bool v6)
{
    struct listener *l;

    list_for_each (l, &m->listeners, struct listener, link) {
        if (l->port == port && l->v6 == v6)
            return l;
    }
    return NULL;
}

/* Returns how long to wait before the same segment is sent again; 0: it is done with. */
static uint64_t syn_arrives(struct conn *c)
{
    struct end *to = &c->end[1];
    struct sim_machine *m = to->machine;
    struct listener *l;

    if (sim.now_ns - c->syn_ns > CONNECT_NS) {
        c->end[0].err = -ETIMEDOUT;
        to->machine = NULL;
        end_tell(&c->end[0], true, true);
        return 0;
    }
    if (m->rt == NULL)
        return RETRANSMIT_NS;
    l = listener_at(m, to->port, c->v6);
    if (l == NULL) {
        to->machine = NULL;
        seg_send(c, 0, SEG_REFUSED, 0);
        return 0;
    }
    if (l->nqueue >= l->backlog)
        return BACKLOG_RETRY_NS;
    to->boot = m->boots;
    to->connected = true;
    c->state = CONN_OPEN;
    l->nqueue++;
    list_add_tail(&l->queue, &to->queued);
    listener_tell(l);
    seg_send(c, 0, SEG_SYN_OK, 0);
    return 0;
}

static void reset_arrives(struct conn *c, struct end *e)
{
    struct pipe *in = &c->pipe[1 - e->side];

    if (e->err != 0 || e->machine == NULL)
        return;
    e->err = -ECONNRESET;
    /* Some systems let a program read what came before the reset, some do not. */
    if (sim_chance(&sim.net, 500000))
        in->arrived = in->taken;
    end_tell(e, true, true);
}

/* Tells the sender what `side` has taken. One at a time is under way: the next one follows it. */
static void ack_send(struct conn *c, unsigned side)
{
    struct pipe *p = &c->pipe[1 - side];
    const struct end *e = &c->end[side];

    if (p->acked == p->taken || p->ack_under_way || e->err != 0 || e->machine == NULL || e->lost)
        return;
    p->ack_under_way = true;
    seg_send(c, 1u - side, SEG_ACK, p->taken);
}

static void seg_takes_effect(struct seg *s)
{
    struct conn *c = s->conn;
    struct end *e = &c->end[s->to];
    struct pipe *in = &c->pipe[1 - s->to], *out = &c->pipe[s->to];

    switch (s->kind) {
    case SEG_SYN:
        break;
    case SEG_SYN_OK:
        e->connected = true;
        end_tell(e, false, true);
        break;
    case SEG_REFUSED:
        c->state = CONN_REFUSED;
        e->err = -ECONNREFUSED;
        end_tell(e, true, true);
        break;
    case SEG_DATA:
        in->arrived = MAX(in->arrived, s->pos);
        end_tell(e, true, false);
        break;
    case SEG_FIN:
        in->arrived = MAX(in->arrived, s->pos);
        in->fin_at = s->pos;
        end_tell(e, true, false);
        break;
    case SEG_ACK:
        out->acked = MAX(out->acked, s->pos);
        out->ack_under_way = false;
        end_tell(e, false, true);
        ack_send(c, 1u - s->to);
        break;
    case SEG_RST:
        reset_arrives(c, e);
        break;
    }
}

/* Whether nobody is there to take it: a closed socket, or a machine that has crashed since. */
static bool seg_finds_nobody(const struct seg *s)
{
    const struct end *e = &s->conn->end[s->to];

    return e->machine == NULL || e->lost;
}

static uint64_t seg_process(struct seg *s)
{
    struct conn *c = s->conn;
    struct end *to = &c->end[s->to], *from = &c->end[1 - s->to];
    uint64_t blocked = 0;

    if (to->machine != NULL && from->machine != NULL)
        blocked = sim.blocked_until[from->machine->idx][to->machine->idx];
    if (blocked > sim.now_ns)
        return blocked - sim.now_ns + net_delay();
    if (s->kind == SEG_SYN && to->machine != NULL)
        return syn_arrives(c);
    if (!seg_finds_nobody(s)) {
        seg_takes_effect(s);
        return 0;
    }
    if (s->kind != SEG_DATA && s->kind != SEG_FIN)
        return 0;
    if (to->lost && to->machine != NULL && to->machine->rt == NULL && from->machine != NULL)
        return RETRANSMIT_NS;
    if (s->kind == SEG_DATA || to->lost)
        seg_send(c, 1u - s->to, SEG_RST, 0);
    return 0;
}

static void seg_arrives(struct sim_event *ev)
{
    struct seg *s = container_of(ev, struct seg, ev);
    uint64_t again = seg_process(s);

    if (again > 0) {
        sim_event_in(&s->ev, again);
        return;
    }
    s->conn->under_way--;
    conn_maybe_free(s->conn);
    free(s);
}

/* --- listening and connecting ------------------------------------------------------------------
 */

int sim_net_listen(struct rt_sock *s, const struct sockaddr *addr, socklen_t len, int backlog)
{
    bool v6 = addr->sa_family == AF_INET6;
    uint16_t port = port_of(addr);
    struct listener *l;

    (void)len;
    if (addr->sa_family != AF_INET && !v6)
        return -EAFNOSUPPORT;
    if (port == 0)
        port = sim.next_port++;
    if (listener_at(sim.here, port, v6) != NULL)
        return -EADDRINUSE;
    l = calloc(1, sizeof(*l));
    must(l != NULL);
    *l = (struct listener){.machine = sim.here,
                           .sock = s,
                           .reactor = sim.here_reactor,
                           .port = port,
                           .v6 = v6,
                           .backlog = (unsigned)MAX(backlog, 1)};
    list_init(&l->queue);
    list_add_tail(&sim.here->listeners, &l->link);
    l->fd = sim_fd_new(sim.here, SIM_FD_LISTENER, l);
    must(l->fd >= 0);
    s->fd = l->fd;
    s->slot = l;
    sim_trace("%s: listens on %u", sim.here->name, port);
    return 0;
}

static void listener_close(struct listener *l)
{
    struct end *e;

    while ((e = list_pop_entry(&l->queue, struct end, queued)) != NULL) {
        e->machine = NULL;
        seg_send(e->conn, 0, SEG_RST, 0);
    }
    if (l->due_queued)
        list_del(&l->due.link);
    list_del(&l->link);
    free(l);
}

int sim_net_accept(struct rt_sock *s)
{
    struct listener *l = s->slot;
    struct end *e = list_first(&l->queue, struct end, queued);
    int fd;

    if (e == NULL)
        return -EAGAIN;
    fd = sim_fd_new(sim.here, SIM_FD_CONN, e);
    if (fd < 0)
        return fd;
    list_del(&e->queued);
    l->nqueue--;
    e->fd = fd;
    sim_trace("%s: accepts #%llu", sim.here->name, (unsigned long long)e->conn->id);
    return fd;
}

int sim_net_attach(struct rt_sock *s, int fd)
{
    struct end *e = sim_fd_get(sim.here, fd, SIM_FD_CONN);

    must(e != NULL);
    must(e->sock == NULL);
    e->sock = s;
    e->reactor = sim.here_reactor;
    s->fd = fd;
    s->slot = e;
    return 0;
}

static void pipe_init(struct pipe *p)
{
    const struct sim_weather *w = &sim.weather;

    *p = (struct pipe){.fin_at = UINT64_MAX, .reset_at = UINT64_MAX};
    p->cap = (uint32_t)sim_skewed(&sim.net, 2048, w->net_buf_bytes);
    p->ring = malloc(p->cap);
    must(p->ring != NULL);
    if (sim_chance(&sim.net, w->net_reset_ppm))
        p->reset_at = sim_skewed(&sim.net, 1, 4 * MIB);
}

int sim_net_connect(struct rt_sock *s, const struct sockaddr *addr, socklen_t len)
{
    struct sim_machine *m = machine_of(addr);
    struct conn *c;

    (void)len;
    if (m == NULL)
        return -EHOSTUNREACH;
    c = calloc(1, sizeof(*c));
    must(c != NULL);
    c->id = ++sim.conn_count;
    c->v6 = addr->sa_family == AF_INET6;
    c->syn_ns = sim.now_ns;
    c->end[0] = (struct end){.conn = c,
                             .side = 0,
                             .machine = sim.here,
                             .boot = sim.here->boots,
                             .sock = s,
                             .reactor = sim.here_reactor,
                             .port = sim.next_port++};
    c->end[1] = (struct end){.conn = c, .side = 1, .machine = m, .port = port_of(addr), .fd = -1};
    pipe_init(&c->pipe[0]);
    pipe_init(&c->pipe[1]);
    list_add_tail(&sim.conns, &c->link);
    c->end[0].fd = sim_fd_new(sim.here, SIM_FD_CONN, &c->end[0]);
    must(c->end[0].fd >= 0);
    s->fd = c->end[0].fd;
    s->slot = &c->end[0];
    sim_trace("%s: connects #%llu to %s:%u", sim.here->name, (unsigned long long)c->id, m->name,
              c->end[1].port);
    seg_send(c, 1, SEG_SYN, 0);
    return -EINPROGRESS;
}

int sim_net_connected(struct rt_sock *s)
{
    struct end *e = s->slot;

    return e->err;
}

/* --- bytes -------------------------------------------------------------------------------------
 */

static void ring_in(struct pipe *p, const struct iovec *iov, unsigned iovcnt, size_t len)
{
    size_t at = p->sent % p->cap;
    size_t first = MIN(len, p->cap - at);

    iov_copy_out(iov, iovcnt, 0, p->ring + at, first);
    iov_copy_out(iov, iovcnt, first, p->ring, len - first);
    p->sent += len;
}

static void ring_out(struct pipe *p, const struct iovec *iov, unsigned iovcnt, size_t len)
{
    size_t at = p->taken % p->cap;
    size_t first = MIN(len, p->cap - at);

    iov_copy_in(iov, iovcnt, 0, p->ring + at, first);
    iov_copy_in(iov, iovcnt, first, p->ring, len - first);
    p->taken += len;
}

static void conn_reset(struct conn *c)
{
    sim.nresets++;
    sim_trace("net: #%llu is reset", (unsigned long long)c->id);
    seg_send(c, 0, SEG_RST, 0);
    seg_send(c, 1, SEG_RST, 0);
}

ssize_t sim_net_recv(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt)
{
    struct end *e = s->slot;
    struct conn *c = e->conn;
    struct pipe *p = &c->pipe[1 - e->side];
    size_t room = iov_len(iov, iovcnt);
    size_t n = (size_t)MIN(p->arrived - p->taken, (uint64_t)room);

    if (n == 0) {
        if (e->err != 0)
            return e->err;
        return p->taken == p->fin_at ? 0 : -EAGAIN;
    }
    if (sim_chance(&sim.net, sim.weather.net_split_ppm))
        n = sim_between(&sim.net, 1, n);
    ring_out(p, iov, iovcnt, n);
    sim_trace("%s: #%llu recv %zu", sim.here->name, (unsigned long long)c->id, n);
    ack_send(c, e->side);
    return (ssize_t)n;
}

static void send_segments(struct conn *c, unsigned to, uint64_t from, uint64_t end)
{
    while (from < end) {
        uint64_t n = MIN(end - from, (uint64_t)SEGMENT_MAX);

        if (sim_chance(&sim.net, sim.weather.net_split_ppm))
            n = sim_skewed(&sim.net, 1, n);
        from += n;
        seg_send(c, to, SEG_DATA, from);
    }
}

ssize_t sim_net_send(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt)
{
    struct end *e = s->slot;
    struct conn *c = e->conn;
    struct pipe *p = &c->pipe[e->side];
    uint64_t room = p->cap - (p->sent - p->acked);
    size_t n = iov_len(iov, iovcnt);

    if (e->err != 0)
        return e->err;
    if (e->shut)
        return -EPIPE;
    if (room == 0)
        return -EAGAIN;
    if (n == 0)
        return 0;
    n = (size_t)MIN((uint64_t)n, room);
    if (sim_chance(&sim.net, sim.weather.net_split_ppm))
        n = sim_between(&sim.net, 1, n);
    ring_in(p, iov, iovcnt, n);
    sim_trace("%s: #%llu send %zu", sim.here->name, (unsigned long long)c->id, n);
    send_segments(c, 1u - e->side, p->sent - n, p->sent);
    if (p->sent >= p->reset_at) {
        p->reset_at = UINT64_MAX;
        conn_reset(c);
    }
    return (ssize_t)n;
}

void sim_net_arm(struct rt_sock *s)
{
    struct listener *l = s->slot;
    struct end *e = s->slot;
    struct pipe *in, *out;

    if (sim.here->fd[s->fd].kind == SIM_FD_LISTENER) {
        if (!list_empty(&l->queue))
            listener_tell(l);
        return;
    }
    in = &e->conn->pipe[1 - e->side];
    out = &e->conn->pipe[e->side];
    if (s->in_waiter != NULL && (in->arrived > in->taken || in->fin_at == in->taken || e->err != 0))
        end_tell(e, true, false);
    if (s->out_waiter != NULL &&
        (e->err != 0 || (e->connected && out->sent - out->acked < out->cap)))
        end_tell(e, false, true);
}

int sim_net_addr(const struct rt_sock *s, bool peer, struct sockaddr_storage *out)
{
    struct end *e = s->slot, *of;
    struct listener *l = s->slot;

    if (sim.here->fd[s->fd].kind == SIM_FD_LISTENER) {
        if (peer)
            return -ENOTCONN;
        put_addr(l->v6, l->machine, l->port, out);
        return 0;
    }
    of = &e->conn->end[peer ? 1 - e->side : e->side];
    if (of->machine == NULL)
        return -ENOTCONN;
    put_addr(e->conn->v6, of->machine, of->port, out);
    return 0;
}

/* --- ending ------------------------------------------------------------------------------------
 */

static void end_fin(struct end *e)
{
    if (e->shut || e->err != 0)
        return;
    e->shut = true;
    seg_send(e->conn, 1u - e->side, SEG_FIN, e->conn->pipe[e->side].sent);
}

/* Closing with something unread tells the peer by a reset, as TCP does. */
static void end_close(struct end *e)
{
    struct conn *c = e->conn;
    struct pipe *in = &c->pipe[1 - e->side];
    struct end *peer = &c->end[1 - e->side];

    if (c->state == CONN_OPEN && in->arrived > in->taken && e->err == 0)
        seg_send(c, 1u - e->side, SEG_RST, 0);
    else
        end_fin(e);
    if (peer->lost)
        peer->machine = NULL;
    end_detach(e);
    conn_maybe_free(c);
}

void sim_net_shutdown(struct rt_sock *s)
{
    end_fin(s->slot);
}

void sim_net_discard(int fd)
{
    struct end *e = sim_fd_get(sim.here, fd, SIM_FD_CONN);

    must(e != NULL);
    sim_fd_free(sim.here, fd);
    end_close(e);
}

void sim_net_close(struct rt_sock *s)
{
    bool listens = sim.here->fd[s->fd].kind == SIM_FD_LISTENER;

    must(sim_fd_get(sim.here, s->fd, listens ? SIM_FD_LISTENER : SIM_FD_CONN) == s->slot);
    sim_fd_free(sim.here, s->fd);
    if (listens)
        listener_close(s->slot);
    else
        end_close(s->slot);
    s->slot = NULL;
}

/* --- faults ------------------------------------------------------------------------------------
 */

void sim_net_partition(struct sim_machine *a, struct sim_machine *b, uint64_t for_ns)
{
    sim_trace("net: nothing between %s and %s for %llu ms", a->name, b->name,
              (unsigned long long)(for_ns / NS_PER_MS));
    sim.npartitions++;
    sim.blocked_until[a->idx][b->idx] = sim.now_ns + for_ns;
    sim.blocked_until[b->idx][a->idx] = sim.now_ns + for_ns;
}

bool sim_net_reset_one(void)
{
    struct conn *c, *chosen = NULL;
    uint64_t n = 0;

    list_for_each (c, &sim.conns, struct conn, link) {
        if (c->end[0].machine == NULL || c->end[1].machine == NULL || c->state != CONN_OPEN)
            continue;
        if (sim_below(&sim.net, ++n) == 0)
            chosen = c;
    }
    if (chosen != NULL)
        conn_reset(chosen);
    return chosen != NULL;
}

static void end_crash(struct end *e, bool power)
{
    struct conn *c = e->conn;
    struct end *peer = &c->end[1 - e->side];

    if (e->due_in || e->due_out)
        list_del(&e->due.link);
    e->due_in = e->due_out = false;
    e->sock = NULL;
    if (power && peer->machine != NULL) {
        e->lost = true;
        return;
    }
    if (c->state == CONN_OPEN)
        seg_send(c, peer->side, sim_chance(&sim.net, 500000) ? SEG_RST : SEG_FIN,
                 c->pipe[e->side].sent);
    e->machine = NULL;
}

void sim_net_crash(struct sim_machine *m, bool power)
{
    struct listener *l;
    struct conn *c;

    while ((l = list_first(&m->listeners, struct listener, link)) != NULL) {
        /* What waits in its queue is an end of this machine, dealt with below. */
        while (list_pop(&l->queue) != NULL)
            continue;
        listener_close(l);
    }
    list_for_each (c, &sim.conns, struct conn, link) {
        for (unsigned side = 0; side < 2; side++) {
            struct end *e = &c->end[side];

            if (e->machine == m && e->boot == m->boots && !e->lost)
                end_crash(e, power);
        }
    }
    list_for_each (c, &sim.conns, struct conn, link) {
        /* A lost end has done its duty when its peer has gone as well. */
        for (unsigned side = 0; side < 2; side++) {
            if (c->end[side].lost && c->end[1 - side].machine == NULL)
                c->end[side].machine = NULL;
        }
        conn_maybe_free(c);
    }
}

void sim_net_fini(void)
{
    struct conn *c;

    for (uint32_t i = sim.nevents; i > 0; i--) {
        struct sim_event *ev = sim.heap[i];

        if (ev->fn == seg_arrives) {
            sim_event_stop(ev);
            free(container_of(ev, struct seg, ev));
        }
    }
    while ((c = list_pop_entry(&sim.conns, struct conn, link)) != NULL) {
        free(c->pipe[0].ring);
        free(c->pipe[1].ring);
        free(c);
    }
}
