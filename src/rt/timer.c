/* SPDX-License-Identifier: Apache-2.0 */
/* Timers of a reactor: a binary heap by deadline; each timer knows its place, so stop is O(log n).
 */
#include "rt/internal.h"

static void place(struct rt_timers *h, struct rt_timer *timer, uint32_t pos)
{
    h->heap[pos] = timer;
    timer->heap_pos = pos;
}

static void sift_up(struct rt_timers *h, struct rt_timer *timer, uint32_t pos)
{
    while (pos > 1 && h->heap[pos / 2]->at_ns > timer->at_ns) {
        place(h, h->heap[pos / 2], pos);
        pos /= 2;
    }
    place(h, timer, pos);
}

static void sift_down(struct rt_timers *h, struct rt_timer *timer, uint32_t pos)
{
    for (;;) {
        uint32_t child = pos * 2;

        if (child > h->count)
            break;
        if (child < h->count && h->heap[child + 1]->at_ns < h->heap[child]->at_ns)
            child++;
        if (h->heap[child]->at_ns >= timer->at_ns)
            break;
        place(h, h->heap[child], pos);
        pos = child;
    }
    place(h, timer, pos);
}

/* At start, so that the first timers do not come when there is no memory. */
int rt_timers_init(struct rt_reactor *r)
{
    struct rt_timers *h = &r->timers;

    h->cap = 1024;
    h->heap = calloc(h->cap, sizeof(*h->heap));
    return h->heap == NULL ? -ENOMEM : 0;
}

static void heap_room(struct rt_timers *h)
{
    if (h->count + 1 < h->cap)
        return;
    h->cap *= 2;
    h->heap = realloc(h->heap, h->cap * sizeof(*h->heap));
    must(h->heap != NULL);
}

void rt_timer_start(struct rt_timer *timer, uint64_t at_ns)
{
    struct rt_timers *h = &self_must()->timers;

    must(timer->fn != NULL);
    rt_timer_stop(timer);
    heap_room(h);
    timer->at_ns = at_ns;
    h->count++;
    sift_up(h, timer, h->count);
}

void rt_timer_stop(struct rt_timer *timer)
{
    struct rt_timers *h;
    struct rt_timer *last;
    uint32_t pos = timer->heap_pos;

    if (pos == 0)
        return;
    h = &self_must()->timers;
    must(pos <= h->count);
    must(h->heap[pos] == timer);
    last = h->heap[h->count--];
    timer->heap_pos = 0;
    if (last == timer)
        return;
    if (pos > 1 && h->heap[pos / 2]->at_ns > last->at_ns)
        sift_up(h, last, pos);
    else
        sift_down(h, last, pos);
}

void rt_timers_run(struct rt_reactor *r)
{
    struct rt_timers *h = &r->timers;

    while (h->count > 0 && h->heap[1]->at_ns <= r->now_ns) {
        struct rt_timer *timer = h->heap[1];

        rt_timer_stop(timer);
        timer->fn(timer);
    }
}

uint64_t rt_timers_next(const struct rt_reactor *r)
{
    return r->timers.count > 0 ? r->timers.heap[1]->at_ns : UINT64_MAX;
}

void rt_timers_fini(struct rt_reactor *r)
{
    free(r->timers.heap);
}
