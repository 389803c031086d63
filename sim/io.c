/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An operation is submitted, takes effect some time later (then its buffers are read or written),
 * and is told some time after that. A crash may fall between any two of the three.
 */
#include "sim/io.h"

#include "sim/fs.h"

struct sim_io {
    struct sim_event ev;
    struct sim_due due;
    struct list link; /* machine's inflight */
    struct sim_machine *machine;
    struct sim_reactor *reactor;
    struct rt_io *io;            /* or */
    struct rt_offload_req *oreq; /* an offloaded function */
    bool applied;
    int rc;
};

static uint64_t delay(void)
{
    const struct sim_weather *w = &sim.weather;

    if (sim_chance(&sim.disk, w->disk_slow_ppm))
        return sim_between(&sim.disk, 10 * NS_PER_MS, 2 * NS_PER_S);
    return w->disk_delay_ns / 2 + sim_skewed(&sim.disk, 0, w->disk_jitter_ns);
}

static struct sim_io *io_new(struct rt_io *io, struct rt_offload_req *oreq)
{
    struct sim_io *s = calloc(1, sizeof(*s));

    must(s != NULL);
    s->machine = sim.here;
    s->reactor = sim.here_reactor;
    s->io = io;
    s->oreq = oreq;
    list_add_tail(&sim.here->inflight, &s->link);
    return s;
}

/* From the reactor's poll: the result is told. An offloaded function runs only here, inline. */
static void io_told(struct sim_due *due)
{
    struct sim_io *s = container_of(due, struct sim_io, due);
    struct rt_io *io = s->io;
    struct rt_offload_req *oreq = s->oreq;
    int rc = s->rc;

    list_del(&s->link);
    free(s);
    if (oreq != NULL) {
        oreq->fn_rc = oreq->fn(oreq->arg);
        rt_req_complete(&oreq->req, oreq->fn_rc);
    } else {
        if (rc == -EIO && (io->op == RT_IO_FSYNC || io->op == RT_IO_FDATASYNC))
            sim_fs_sync_told(sim.here, io);
        rt_req_complete(&io->req, rc);
    }
}

static void io_tell(struct sim_event *ev)
{
    struct sim_io *s = container_of(ev, struct sim_io, ev);

    s->due.run = io_told;
    sim_due_add(s->reactor, &s->due);
}

static void io_apply(struct sim_io *s)
{
    s->applied = true;
    s->rc = sim_fs_do(s->machine, s->io);
    sim.nios++;
    sim_trace("%s: %s rc %d", s->machine->name, sim_fs_text(s->io), s->rc);
}

static void io_effect(struct sim_event *ev)
{
    struct sim_io *s = container_of(ev, struct sim_io, ev);

    io_apply(s);
    s->ev.fn = io_tell;
    sim_event_in(&s->ev, delay() / 4);
}

void sim_io_submit(struct rt_io *io)
{
    struct sim_io *s = io_new(io, NULL);

    io->backend[0] = s;
    s->ev.fn = io_effect;
    sim_event_in(&s->ev, delay());
}

void sim_io_offload(struct rt_offload_req *oreq)
{
    struct sim_io *s = io_new(NULL, oreq);

    s->ev.fn = io_tell;
    sim_event_in(&s->ev, delay());
}

void sim_io_cancel(struct rt_io *io)
{
    struct sim_io *s = io->backend[0];

    if (s->applied || sim_chance(&sim.disk, 500000))
        return;
    s->applied = true;
    s->rc = -ECANCELED;
    s->ev.fn = io_tell;
    sim_trace("%s: %s cancelled", s->machine->name, sim_fs_text(io));
    sim_event_in(&s->ev, 0);
}

void sim_io_crash(struct sim_machine *m)
{
    struct sim_io *s;

    while ((s = list_pop_entry(&m->inflight, struct sim_io, link)) != NULL) {
        sim_event_stop(&s->ev);
        if (s->io != NULL && !s->applied && sim_chance(&sim.disk, 500000))
            io_apply(s);
        free(s);
    }
}
