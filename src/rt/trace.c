/* SPDX-License-Identifier: Apache-2.0 */
#include "rt/trace.h"

#include "rt/internal.h"

#include <stdio.h>

struct event {
    uint64_t ns;
    const char *point;
    uint64_t id;
    uint64_t a, b;
};

struct rt_trace_ring {
    uint32_t mask;
    uint64_t count; /* written since the beginning; the last mask + 1 of them are there */
    struct event event[];
};

bool rt_trace_on;

int rt_trace_init(struct rt_reactor *r, unsigned events)
{
    uint32_t n = 64;

    if (events == 0)
        return 0;
    while (n < events && n < 1u << 24)
        n *= 2;
    r->trace = calloc(1, sizeof(*r->trace) + n * sizeof(struct event));
    if (r->trace == NULL)
        return -ENOMEM;
    r->trace->mask = n - 1;
    rt_trace_on = true;
    return 0;
}

void rt_trace_fini(struct rt_reactor *r)
{
    free(r->trace);
    r->trace = NULL;
}

void rt_trace_add(const char *point, uint64_t id, uint64_t a, uint64_t b)
{
    struct rt_trace_ring *ring = self_must()->trace;

    if (ring == NULL)
        return;
    ring->event[ring->count++ & ring->mask] =
        (struct event){.ns = rt_now_exact(), .point = point, .id = id, .a = a, .b = b};
}

struct dump {
    void (*line)(const char *text, void *arg);
    void *arg;
};

static int dump_one(struct rt_task *t, void *arg)
{
    const struct rt_reactor *r = self_must();
    const struct rt_trace_ring *ring = r->trace;
    const struct dump *d = arg;
    uint64_t end, from;
    char text[160];

    (void)t;
    if (ring == NULL)
        return 0;
    end = ring->count;
    from = end > ring->mask ? end - ring->mask - 1 : 0;
    for (uint64_t i = from; i < end; i++) {
        const struct event *e = &ring->event[i & ring->mask];

        snprintf(text, sizeof(text), "reactor %u %llu.%09llu id %llu-%llu %s %llu %llu", r->idx,
                 (unsigned long long)(e->ns / NS_PER_S), (unsigned long long)(e->ns % NS_PER_S),
                 (unsigned long long)(e->id >> 48), (unsigned long long)(e->id & 0xffffffffffff),
                 e->point, (unsigned long long)e->a, (unsigned long long)e->b);
        d->line(text, d->arg);
    }
    return (int)(end - from);
}

int rt_trace_dump(struct rt_task *t, void (*line)(const char *text, void *arg), void *arg)
{
    struct dump d = {.line = line, .arg = arg};
    int n = 0;

    for (unsigned i = 0; i < rt_reactors(); i++) {
        int rc = rt_on(t, rt_reactor(i), dump_one, &d);

        if (rc < 0)
            return rc;
        n += rc;
    }
    return n;
}
