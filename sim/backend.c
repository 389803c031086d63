/* SPDX-License-Identifier: Apache-2.0 */
/* The third implementation of rt_backend_ops: the virtual world below a runtime. */
#include "sim/world.h"

#include "sim/io.h"
#include "sim/net.h"

#define WALL_EPOCH_S                                                                               \
    1793491200ull /* where the wall clock of each world begins, about 2026-11-01                   \
                   */

static int backend_init(struct rt_reactor *r, struct err *why)
{
    (void)why;
    rt_backend_set(r, &sim.here->reactor[rt_index(r)]);
    return 0;
}

static void backend_fini(struct rt_reactor *r)
{
    rt_backend_set(r, NULL);
}

/* Takes in some of what is due, in any order. What is left comes with the next turn. */
static bool backend_poll(struct rt_reactor *r, uint64_t timeout_ns)
{
    struct sim_reactor *s = rt_backend_of(r);
    struct list batch;
    bool any = false;

    (void)timeout_ns;
    list_init(&batch);
    while (!list_empty(&s->due)) {
        struct sim_due *due = container_of(list_pop(&s->due), struct sim_due, link);

        if (sim_chance(&sim.order, 300000))
            list_add_head(&batch, &due->link);
        else
            list_add_tail(&batch, &due->link);
    }
    while (!list_empty(&batch)) {
        struct sim_due *due = container_of(list_pop(&batch), struct sim_due, link);

        due->run(due);
        any = true;
        if (sim_chance(&sim.order, 100000))
            break;
    }
    while (!list_empty(&batch))
        list_add_tail(&s->due, list_pop(&batch));
    return any;
}

static void backend_wake(struct rt_reactor *r)
{
    struct sim_reactor *s = rt_backend_of(r);

    s->idle = false;
}

static void backend_io_submit(struct rt_reactor *r, struct rt_io *io)
{
    (void)r;
    sim_io_submit(io);
}

static void backend_io_cancel(struct rt_reactor *r, struct rt_io *io)
{
    (void)r;
    sim_io_cancel(io);
}

static void backend_fd_wait(struct rt_reactor *r, struct rt_io *io)
{
    (void)r;
    rt_req_complete(&io->req, -ENOTSUP); /* there are no such descriptors here */
}

static void backend_offload(struct rt_reactor *r, struct rt_offload_req *oreq)
{
    (void)r;
    sim_io_offload(oreq);
}

static uint64_t backend_now(void)
{
    return sim.now_ns;
}

static uint64_t backend_wall(void)
{
    return WALL_EPOCH_S * NS_PER_S + sim.now_ns;
}

static void backend_random(void *buf, size_t len)
{
    uint8_t *out = buf;

    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)sim_roll(&sim.random);
}

const struct rt_backend_ops sim_backend_ops = {
    .name = "sim",
    .init = backend_init,
    .fini = backend_fini,
    .poll = backend_poll,
    .wake = backend_wake,
    .io_submit = backend_io_submit,
    .io_cancel = backend_io_cancel,
    .fd_wait = backend_fd_wait,
    .offload = backend_offload,
    .sock_listen = sim_net_listen,
    .sock_accept = sim_net_accept,
    .sock_attach = sim_net_attach,
    .sock_discard = sim_net_discard,
    .sock_connect = sim_net_connect,
    .sock_connected = sim_net_connected,
    .sock_recv = sim_net_recv,
    .sock_send = sim_net_send,
    .sock_arm = sim_net_arm,
    .sock_addr = sim_net_addr,
    .sock_shutdown = sim_net_shutdown,
    .sock_close = sim_net_close,
    .now = backend_now,
    .wall = backend_wall,
    .random = backend_random,
};
