/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tracepoints: the last events of each reactor in a ring of fixed size, to be read when something
 * was slow or went wrong. Each carries the trace id of its request, so that one command can be
 * followed from the connection through the layers to the driver and back. Off unless
 * rt_config.trace_events says otherwise; then a tracepoint costs one test of a flag.
 */
#ifndef KVASIR_RT_TRACE_H
#define KVASIR_RT_TRACE_H

#include "rt/rt.h"

extern bool rt_trace_on;

void rt_trace_add(const char *point, uint64_t id, uint64_t a, uint64_t b);

/** Takes down that the request `id` passed `point` (a static text: "blk submit"). */
static inline void rt_trace(const char *point, uint64_t id, uint64_t a, uint64_t b)
{
    if (UNLIKELY(rt_trace_on))
        rt_trace_add(point, id, a, b);
}

/**
 * Hands the events of all reactors to `line`, reactor by reactor, oldest first, as text:
 * "reactor 0 123.456789012 id 1-42 blk submit 1 4096". Waits. Returns how many there were.
 */
int rt_trace_dump(struct rt_task *t, void (*line)(const char *text, void *arg), void *arg);

#endif
